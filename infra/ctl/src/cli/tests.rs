//! The command line parses, and its help is complete.

use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_valid() {
    Cli::command().debug_assert();
}

/// `gretactl --help` alone names every command, argument and option.
#[test]
fn the_help_names_everything() {
    fn check(command: &clap::Command, path: &str, help: &str) {
        for argument in command.get_arguments() {
            if let Some(long) = argument.get_long() {
                assert!(help.contains(&format!("--{long}")), "{path} --{long}");
            }
        }
        for inner in command.get_subcommands() {
            let path = format!("{path} {}", inner.get_name());
            if !inner.has_subcommands() {
                assert!(help.contains(&format!(" {path} ")), "{path}");
            }
            check(inner, path.trim(), help);
        }
    }
    let mut command = Cli::command();
    let help = command.render_help().to_string();
    for inner in command.get_subcommands() {
        check(inner, inner.get_name(), &help);
    }
    assert_eq!(command.render_long_help().to_string(), help);
}

#[test]
fn amounts_are_exact_and_not_zero() {
    let micros = |text| signed_amount(text).ok().map(Credits::micros);
    for (text, expected) in [
        ("5", Some(5_000_000)),
        ("+0.5", Some(500_000)),
        ("-0.000001", Some(-1)),
        ("0", None),
        ("-0", None),
        ("0.0000001", None),
        ("five", None),
        ("", None),
        ("+-5", None),
    ] {
        assert_eq!(micros(text), expected, "{text}");
    }
    assert!(amount("5").is_ok());
    for text in ["-5", "0"] {
        assert!(amount(text).is_err(), "{text}");
    }
}

#[test]
fn segments_are_counted_from_one() {
    for (text, expected) in [
        ("1/1", Some((0, 1))),
        ("4/4", Some((3, 4))),
        ("0/4", None),
        ("5/4", None),
        ("1/0", None),
        ("-1/4", None),
        ("1", None),
    ] {
        let found = segment(text).ok().map(|found| (found.index, found.of));
        assert_eq!(found, expected, "{text}");
    }
}
