//! The Lambda function `ai-proxy`.

use ai_proxy::Deps;
use edge::Setup;

fn main() -> Result<(), edge::Error> {
    edge::serve_streaming(async |env| Ok(ai_proxy::router(Deps::new(Setup::new(env).await)?)))
}
