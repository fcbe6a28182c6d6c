//! The Lambda function `key-save`.

use edge::Setup;
use key_save::Deps;

fn main() -> Result<(), edge::Error> {
    edge::serve(async |env| Ok(key_save::router(Deps::new(Setup::new(env).await)?)))
}
