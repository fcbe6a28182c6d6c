//! The plain pages that this program shows itself.

const STYLE: &str = "
:root { color-scheme: light dark; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: light-dark(#1a1f36, #ecedf5); background: light-dark(#f6f8fa, #14161f); }
main { max-width: 26rem; margin: 0 auto; padding: 1.5rem 1rem; }
h1 { font-size: 1.1rem; font-weight: 600; margin: 0 0 .5rem; }
.price { font-size: 2rem; font-weight: 600; margin: 0 0 1.5rem; }
.note { color: light-dark(#566072, #a9adc2); font-size: .875rem; }
.problem { color: #a4132e; background: #fdecef; padding: .6rem .8rem; border-radius: .4rem; }
label { display: block; font-weight: 600; margin: .75rem 0 .3rem; }
select, input, button { width: 100%; font: inherit; padding: .65rem; border-radius: .4rem; border: 1px solid light-dark(#7a8494, #767b92); background: light-dark(#fff, #1b1d27); color: inherit; box-sizing: border-box; }
button { margin-top: .75rem; cursor: pointer; }
button.pay { color: #fff; background: #0b5fff; border-color: #0b5fff; font-weight: 600; }
a { color: light-dark(#0b4fd0, #a5b0ff); }
";

/// A page with this body. Both are HTML already.
pub(crate) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
}

/// Text as HTML.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
