use super::*;

fn env(pairs: &[(&str, &str)]) -> Env {
    Env::from_pairs(pairs.iter().copied())
}

#[test]
fn one_message_names_every_problem_and_no_value() {
    let mut env = env(&[
        ("EMPTY", " "),
        ("PLAIN_URL", "http://secret.example"),
        ("NO_URL", "secret"),
        ("NUMBER", "secret"),
        ("RANGE", "99"),
        ("MILLIS", "0"),
        ("OWN", "secret"),
        ("GOOD", "secret"),
    ]);
    env.text("MISSING");
    env.text("EMPTY");
    env.url("MISSING_URL");
    env.url("PLAIN_URL");
    env.url("NO_URL");
    assert_eq!(env.number_or("NUMBER", 5, 0..=10), 5);
    assert_eq!(env.number_or("RANGE", 5, 0..=10), 5);
    assert_eq!(env.millis_or("MILLIS", 7), Duration::from_millis(7));
    env.parse_or("OWN", (), |_| Err("must be something else".to_owned()));
    assert_eq!(env.text("GOOD"), "secret");
    env.problem("OTHER", "is odd");
    env.problem("OTHER", "is odd in another way");

    let names = env.names();
    let names = names.lock().unwrap();
    assert_eq!(names.len(), 10, "{names:?}");
    let message = env.finish(()).unwrap_err().to_string();
    assert_eq!(
        message,
        "settings are missing or malformed: EMPTY is not set; MILLIS must be a whole number from 1 \
         to 86400000; MISSING is not set; MISSING_URL is not set; NO_URL must be a URL (relative URL \
         without a base); NUMBER must be a whole number from 0 to 10; OTHER is odd; OWN must be \
         something else; PLAIN_URL must be an https URL (http only on loopback); RANGE must be a \
         whole number from 0 to 10"
    );
}

#[test]
fn values_and_defaults() {
    let mut env = env(&[
        ("TEXT", " a "),
        ("URL", "https://a.example/b"),
        ("NUMBER", "7"),
        ("MILLIS", "1500"),
        ("LIST", "a, b,,c ,"),
        ("OWN", "x"),
        ("EMPTY", ""),
    ]);
    assert_eq!(env.text("TEXT"), "a");
    assert_eq!(env.text_or("TEXT", "d"), "a");
    assert_eq!(env.text_or("EMPTY", "d"), "d");
    assert_eq!(env.optional("TEXT").as_deref(), Some("a"));
    assert_eq!(env.optional("EMPTY"), None);
    assert_eq!(env.optional("MISSING"), None);
    assert_eq!(env.url("URL").as_str(), "https://a.example/b");
    let default = env.url_or("MISSING", "https://d.example/");
    assert_eq!(default.as_str(), "https://d.example/");
    assert_eq!(env.number_or("NUMBER", 5, 7..=7), 7);
    assert_eq!(env.number_or("MISSING", 5, 0..=9), 5);
    assert_eq!(env.millis_or("MILLIS", 1), Duration::from_millis(1_500));
    assert_eq!(env.list("LIST", ""), ["a", "b", "c"]);
    assert_eq!(env.list("MISSING", "x,y"), ["x", "y"]);
    assert_eq!(env.parse_or("OWN", 0, |text| Ok(text.len())), 1);
    assert_eq!(env.parse_or("MISSING", 9, |text| Ok(text.len())), 9);
    assert_eq!(env.finish(1), Ok(1));
}

#[test]
fn urls_are_https_except_on_loopback() {
    for (url, good) in [
        ("https://a.example", true),
        ("https://192.0.2.1:8443/x", true),
        ("http://127.0.0.1:9000", true),
        ("http://127.8.8.8", true),
        ("http://[::1]:9000", true),
        ("http://localhost:9000", true),
        ("http://LOCALHOST", true),
        ("http://0.0.0.0", false),
        ("http://localhost.example", false),
        ("http://127.0.0.1.example", false),
        ("http://[::2]", false),
        ("http://192.0.2.1", false),
        ("ftp://localhost", false),
        ("localhost:9000", false),
        ("data:text/plain,x", false),
    ] {
        let mut env = env(&[("URL", url)]);
        env.url("URL");
        assert_eq!(env.finish(()).is_ok(), good, "{url}");
    }
}

#[test]
fn origins_are_exact() {
    for (list, origins) in [
        ("", Some(&[][..])),
        (
            "https://a.example, http://localhost:5173",
            Some(&["https://a.example", "http://localhost:5173"][..]),
        ),
        ("https://a.example:8443", Some(&["https://a.example:8443"][..])),
        ("*", None),
        ("null", None),
        ("https://*.example", None),
        ("https://a.example/", None),
        ("https://a.example/x", None),
        ("https://a.example:443", None),
        ("https://A.example", None),
        ("https://u@a.example", None),
        ("http://a.example", None),
        ("a.example", None),
        ("https://a.example,nonsense", None),
    ] {
        let mut env = env(&[("ALLOWED_ORIGINS", list)]);
        let settings = HttpSettings::from_env(&mut env);
        let settings = env.finish(settings).ok();
        let allowed = settings.map(|settings| settings.allowed_origins);
        let expected = origins.map(|origins| {
            let origins = origins.iter().copied();
            origins.map(HeaderValue::from_static).collect()
        });
        assert_eq!(allowed, expected, "{list}");
    }
}

#[test]
fn body_limit() {
    for (text, bytes) in [("", Some(4_194_304)), ("1", Some(1)), ("0", None), ("4M", None)] {
        let mut env = env(&[("MAX_BODY_BYTES", text)]);
        let settings = HttpSettings::from_env(&mut env);
        let limit = env.finish(settings).ok().map(|settings| settings.max_body_bytes);
        assert_eq!(limit, bytes, "{text}");
    }
}

#[test]
fn identity_needs_all_three_settings() {
    let mut none = env(&[]);
    let settings = IdentitySettings::from_env(&mut none);
    let message = none.finish(settings).unwrap_err().to_string();
    for name in ["JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE"] {
        assert!(message.contains(name), "{message}");
    }
    let mut all = env(&[
        ("JWKS_URL", "https://issuer.example/jwks"),
        ("JWT_ISSUER", "https://issuer.example"),
        ("JWT_AUDIENCE", "greta"),
    ]);
    let settings = IdentitySettings::from_env(&mut all);
    assert_eq!(all.finish(settings).unwrap().audience, "greta");
}

#[test]
fn the_process_has_an_environment() {
    assert!(Env::process().optional("PATH").is_some());
}
