//! The Lambda function `settings-page`.

use settings_page::Settings;

fn main() -> Result<(), edge::Error> {
    edge::serve(async |env| Ok(settings_page::router(Settings::from_env(env)?)))
}
