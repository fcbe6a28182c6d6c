//! The frame of this program's own plain pages.

use maud::{DOCTYPE, Markup, PreEscaped, html};

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

pub(crate) fn page(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    }
}
