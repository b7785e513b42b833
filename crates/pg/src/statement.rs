//! SQL texts that are prepared once per connection.

use std::rc::Rc;

/// An SQL text, prepared on each connection when it is first used there. Cheap to clone.
#[derive(Clone)]
pub struct Statement(Rc<str>);

impl Statement {
    pub(crate) fn new(sql: &str) -> Statement {
        Statement(sql.into())
    }

    /// The text.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.0
    }
}
