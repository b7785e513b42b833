//! `/fortunes`: a page of all rows of the table `fortune` and one more, sorted, escaped.

use worker::{Buffer, Context, Request, Response, Result};

use crate::{State, html};

pub const SELECT: &str = "SELECT id, message FROM fortune";

/// One fortune.
struct Fortune<'a> {
    id: i32,
    message: &'a str,
}

/// `/fortunes`.
pub fn page(_: &Request<'_>, cx: &Context<State>) -> impl Future<Output = Result> + use<> {
    let cx = cx.clone();
    async move {
        let rows = cx.database().query(&cx.state().fortunes, &[]).await?;
        let mut fortunes = Vec::new();
        for row in rows.iter() {
            let mut values = row.values();
            fortunes.push(Fortune { id: values.int4()?, message: values.str()? });
        }
        fortunes.push(Fortune { id: 0, message: "Additional fortune added at request time." });
        fortunes.sort_unstable_by(|a, b| a.message.cmp(b.message));
        Ok(Response::html(render(&fortunes, cx.buffer())))
    }
}

fn render(fortunes: &[Fortune<'_>], mut page: Buffer) -> Buffer {
    page.extend_from_slice(
        b"<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table>\
          <tr><th>id</th><th>message</th></tr>",
    );
    let mut digits = itoa::Buffer::new();
    for fortune in fortunes {
        page.extend_from_slice(b"<tr><td>");
        page.extend_from_slice(digits.format(fortune.id).as_bytes());
        page.extend_from_slice(b"</td><td>");
        html::escape(fortune.message, &mut page);
        page.extend_from_slice(b"</td></tr>");
    }
    page.extend_from_slice(b"</table></body></html>");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_every_row_escaped() {
        let fortunes = [Fortune { id: 11, message: "<script>\"it's\" & more" }];
        let page = render(&fortunes, Buffer::new());
        let page = std::str::from_utf8(&page).unwrap();
        assert!(page.starts_with(
            "<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table><tr>"
        ));
        assert!(page.contains(
            "<tr><td>11</td><td>&lt;script&gt;&quot;it&#39;s&quot; &amp; more</td></tr></table>"
        ));
    }
}
