//! A run as one page: what rule it broke, in plain words, and a space-time diagram around that moment.
//!
//! ```text
//!   Plan, Verdict ─▶ collect ─▶ Story (data) ─▶ page.html + page.css + page.js + the data as JSON ─▶ one file
//! ```
//!
//! The page asks for nothing from outside, so it can be sent around and opened years later. It holds all that happened
//! up to [`EVENTS_MAX`] events; of a longer run heartbeats go first, then what is far from the violation, and the page
//! says how many.
//!
//! Left out: the bytes of messages and the contents of disks, which `replay` of the same plan has at hand.

mod collect;
mod data;
mod words;

use anyhow::Context;

use crate::{plan::Plan, run::Verdict};

pub use self::data::Story;

/// How many messages, batches and watch responses a page holds: some 10 MB.
pub const EVENTS_MAX: usize = 60_000;

const HTML: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
/// What the run was, then how it is shown.
const JS: &str = concat!(include_str!("model.js"), include_str!("page.js"));

/// The page of a run, whose trace was kept. `again` are the arguments that replay it.
///
/// # Errors
/// If the run can't be written as JSON.
pub fn page(plan: &Plan, verdict: &Verdict, again: &str, events_max: usize) -> anyhow::Result<String> {
    let story = collect::story(plan, verdict, again, events_max);
    let data = serde_json::to_string(&story).context("the run as JSON")?;
    Ok(fill(&story.title, &data))
}

/// The template with its parts. No part's text is looked at again for marks.
fn fill(title: &str, data: &str) -> String {
    // In a script a page reads on until it sees `</`, and a comment's begin confuses it too.
    let data = data.replace('<', "\\u003c");
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    let parts = [("{{title}}", title.as_str()), ("{{css}}", CSS), ("{{data}}", &data), ("{{js}}", JS)];
    let (mut page, mut rest) = (String::with_capacity(HTML.len() + data.len() + CSS.len() + JS.len()), HTML);
    for (mark, text) in parts {
        let Some((before, behind)) = rest.split_once(mark) else { continue };
        page.push_str(before);
        page.push_str(text);
        rest = behind;
    }
    page.push_str(rest);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_takes_its_parts_in_order() {
        let page = fill("a < b", "{\"x\":\"</script>{{js}}\"}");
        assert!(page.contains("<title>a &lt; b</title>"));
        assert!(page.contains("\\u003c/script>{{js}}"), "data is not looked at for marks");
        assert!(page.contains(JS) && page.contains(CSS));
        assert!(!page.contains("{{title}}") && !page.contains("{{data}}") && !page.contains("{{css}}"));
    }

    #[test]
    fn the_page_asks_for_nothing_from_outside() {
        for part in [HTML, CSS, JS] {
            for asked in
                ["src=", "href=\"http", "@import", "url(h", "url(/", "url(\"", "fetch(", "XMLHttpRequest"]
            {
                assert!(!part.contains(asked), "{asked}");
            }
        }
    }
}
