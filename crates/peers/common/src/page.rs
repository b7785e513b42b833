//! The fortunes page, from a template compiled into the program.

use sailfish::TemplateOnce;

/// The fortune that every request adds to those in the table.
pub const ADDITIONAL: &str = "Additional fortune added at request time.";

/// One row of the page; the message stays where the database client has put it.
pub struct Fortune<'a> {
    /// 0 for the one added.
    pub id: i32,
    /// Not yet escaped.
    pub message: &'a str,
}

#[derive(TemplateOnce)]
#[template(path = "fortunes.stpl")]
struct Page<'a> {
    fortunes: Vec<Fortune<'a>>,
}

/// Adds the additional fortune, sorts by message and renders the page.
pub fn fortunes_page(mut fortunes: Vec<Fortune<'_>>) -> String {
    fortunes.push(Fortune { id: 0, message: ADDITIONAL });
    fortunes.sort_by(|a, b| a.message.cmp(b.message));
    // Rendering integers and strings cannot fail.
    Page { fortunes }.render_once().unwrap_or_default()
}
