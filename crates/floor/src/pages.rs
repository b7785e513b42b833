//! Responses, appended to a connection's buffer.

use std::time::{Duration, SystemTime};

/// What heads say of the moment, rendered once a second: the date, and that the connection closes if it does.
pub struct Clock {
    text: String,
    until: SystemTime,
    close: &'static str,
}

impl Clock {
    pub fn new(close: bool) -> Clock {
        let close = if close { "\r\nConnection: close" } else { "" };
        Clock { text: String::new(), until: SystemTime::UNIX_EPOCH, close }
    }

    /// To be called once a turn.
    pub fn tick(&mut self) {
        let now = SystemTime::now();
        if self.until <= now {
            self.text = httpdate::fmt_http_date(now) + self.close;
            self.until = now + Duration::from_secs(1);
        }
    }
}

pub const JSON: &str = "application/json";
pub const TEXT: &str = "text/plain";
pub const HTML: &str = "text/html; charset=utf-8";

/// Appends a whole response.
pub fn response(out: &mut Vec<u8>, clock: &Clock, kind: &str, body: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nServer: floor\r\nDate: ");
    out.extend_from_slice(clock.text.as_bytes());
    out.extend_from_slice(b"\r\nContent-Type: ");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\r\nContent-Length: ");
    number(out, body.len());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// Appends `{"message":"Hello, World!"}`, field by field.
pub fn message(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"{\"message\":\"");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\"}");
}

pub fn world(out: &mut Vec<u8>, id: i32, random_number: i32) {
    out.extend_from_slice(b"{\"id\":");
    number(out, id);
    out.extend_from_slice(b",\"randomNumber\":");
    number(out, random_number);
    out.push(b'}');
}

pub fn fortunes(out: &mut Vec<u8>, rows: &mut Vec<(i32, Vec<u8>)>) {
    rows.push((0, b"Additional fortune added at request time.".to_vec()));
    rows.sort_by(|one, other| one.1.cmp(&other.1));
    out.extend_from_slice(
        b"<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table><tr><th>id</th><th>message</th></tr>",
    );
    for (id, text) in rows {
        out.extend_from_slice(b"<tr><td>");
        number(out, *id);
        out.extend_from_slice(b"</td><td>");
        escape(out, text);
        out.extend_from_slice(b"</td></tr>");
    }
    out.extend_from_slice(b"</table></body></html>");
}

fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) =
        text.iter().position(|byte| matches!(byte, b'<' | b'>' | b'&' | b'"' | b'\''))
    {
        out.extend_from_slice(&text[..at]);
        out.extend_from_slice(match text[at] {
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'&' => b"&amp;",
            b'"' => b"&quot;",
            _ => b"&#39;",
        });
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
