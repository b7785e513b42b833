//! What a handler answers with.
//!
//! - A response is a plain value: a status, a body, a few fields. Framing, `Date` and `Server` are the loop's.
//! - JSON is serialised into a pooled buffer, and that buffer is the body: nothing is allocated per request.
//! - A field that is not allowed in a head makes the response an error (500, logged): nothing can be injected.
//! - A body that is long or not there yet is a stream (`outgoing.rs`) or a file (`files.rs`).

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;

use crate::body::BodyError;
use crate::buffer::Buffer;
use crate::error::Error;
use crate::files::FileBody;
use crate::outgoing::{BodySink, StreamBody};

/// The bytes of a response.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Body {
    /// No bytes.
    #[default]
    Empty,
    /// Bytes that live as long as the program.
    Static(&'static [u8]),
    /// Bytes made for this response.
    Buffer(Buffer),
    /// Bytes that are made while they are sent: see [`Response::stream`].
    Stream(Box<StreamBody>),
    /// A file: see [`Response::file`].
    File(Box<FileBody>),
}

impl Body {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Body::Empty | Body::Stream(_) | Body::File(_) => &[],
            Body::Static(bytes) => bytes,
            Body::Buffer(buffer) => buffer,
        }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Body::Static(text.as_bytes())
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Body {
        Body::Static(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::Buffer(text.into_bytes().into())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body::Buffer(bytes.into())
    }
}

impl From<Buffer> for Body {
    fn from(buffer: Buffer) -> Body {
        Body::Buffer(buffer)
    }
}

/// What a handler answers with: status, fields and body.
///
/// `Date`, `Server`, `Content-Length` and `Connection` are added when it is sent. For a HEAD request, and
/// for the statuses that have no body, the body is left out.
#[derive(Debug)]
#[must_use]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: Option<Cow<'static, str>>,
    pub(crate) body: Body,
    pub(crate) fields: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    pub(crate) is_last: bool,
    /// Why it is a 5xx; logged when it is sent.
    pub(crate) cause: Option<Box<dyn std::error::Error>>,
    /// It says that the request's body could not be read; for the access log.
    pub(crate) body_error: Option<BodyError>,
}

impl Response {
    /// An empty response with this status.
    pub fn status(status: u16) -> Response {
        Response {
            status,
            content_type: None,
            body: Body::Empty,
            fields: Vec::new(),
            is_last: false,
            cause: None,
            body_error: None,
        }
    }

    /// 200 with `body` as it is and this `Content-Type`.
    pub fn bytes(content_type: &'static str, body: impl Into<Body>) -> Response {
        Response {
            content_type: Some(Cow::Borrowed(content_type)),
            body: body.into(),
            ..Response::status(200)
        }
    }

    /// 200 with `value` as JSON.
    ///
    /// A value that cannot be serialised is answered as 500, and logged.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Response {
        let mut body = Buffer::new();
        match serde_json::to_writer(&mut body, value) {
            Ok(()) => Response::bytes("application/json", body),
            Err(error) => Error::from(error).into_response(),
        }
    }

    /// 200 with plain text.
    pub fn text(body: impl Into<Body>) -> Response {
        Response::bytes("text/plain; charset=utf-8", body)
    }

    /// 200 with a page.
    pub fn html(body: impl Into<Body>) -> Response {
        Response::bytes("text/html; charset=utf-8", body)
    }

    /// 200 with a body that `produce` writes while it is sent, with back-pressure.
    ///
    /// It goes out in chunks; to HTTP/1.0, up to the end of the connection; with a `Content-Length` field, as so many
    /// bytes (more are left out, with fewer the connection is cut; both are logged). An error from `produce` after this
    /// point cannot change the status any more: the connection is cut, which tells the client. For HEAD nothing is produced.
    ///
    /// `request_timeout` is the longest that `produce` may go without writing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use worker::{App, Response};
    ///
    /// let app = App::new().get("/ticks", |_, cx| {
    ///     let cx = cx.clone();
    ///     Response::stream("text/plain; charset=utf-8", |mut body| async move {
    ///         for n in 0..10 {
    ///             body.write(format!("{n}\n")).await?;
    ///             cx.sleep(Duration::from_secs(1)).await;
    ///         }
    ///         Ok(())
    ///     })
    /// });
    /// # let _ = app;
    /// ```
    pub fn stream<F>(content_type: &'static str, produce: impl FnOnce(BodySink) -> F) -> Response
    where
        F: Future<Output = Result<(), Error>> + 'static,
    {
        let body = Body::Stream(Box::new(StreamBody::new(produce)));
        Response { content_type: Some(Cow::Borrowed(content_type)), body, ..Response::status(200) }
    }

    /// 200 with bytes that live as long as the program, which are not copied before they are sent.
    pub fn static_bytes(content_type: &'static str, body: &'static [u8]) -> Response {
        Response::bytes(content_type, body)
    }

    /// The usual short page for a status, such as `404 Not Found`.
    pub fn error(status: u16) -> Response {
        let mut body = Buffer::new();
        let mut digits = itoa::Buffer::new();
        body.extend_from_slice(digits.format(status).as_bytes());
        body.push(b' ');
        body.extend_from_slice(http1::status::reason_phrase(status).as_bytes());
        body.push(b'\n');
        Response::text(body).with_status(status)
    }

    /// Replaces the status.
    pub fn with_status(mut self, status: u16) -> Response {
        self.status = status;
        self
    }

    /// Replaces the `Content-Type`.
    pub fn with_content_type(mut self, content_type: impl Into<Cow<'static, str>>) -> Response {
        self.content_type = Some(content_type.into());
        self
    }

    /// Adds a field; `Content-Type` replaces the one that the response has.
    ///
    /// A name or value with forbidden bytes makes this a 500 when it is sent. Framing is the server's own:
    /// `Transfer-Encoding` and the like are left out; `Content-Length` counts for streams and for HEAD;
    /// `Connection: close` is heeded.
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Response {
        let name = name.into();
        if name.eq_ignore_ascii_case("content-type") {
            // Owned, for only the library's own constants go out unchecked.
            return self.with_content_type(value.into().into_owned());
        }
        self.fields.push((name, value.into()));
        self
    }

    /// Asks the client to come back after `wait`, rounded up to whole seconds.
    pub fn retry_after(self, wait: Duration) -> Response {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() != 0);
        self.header("Retry-After", seconds.to_string())
    }

    /// Ends the connection after this response.
    pub fn and_close(mut self) -> Response {
        self.is_last = true;
        self
    }

    pub(crate) fn because(mut self, cause: Box<dyn std::error::Error>) -> Response {
        self.cause = Some(cause);
        self
    }
}

/// Whatever a handler may return.
pub trait IntoResponse {
    /// Makes the response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    #[inline]
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl<R: IntoResponse> IntoResponse for (u16, R) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

impl<R: IntoResponse> IntoResponse for Result<R, Error> {
    #[inline]
    fn into_response(self) -> Response {
        match self {
            Ok(answer) => answer.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_body_without_a_copy_in_between() {
        #[derive(Serialize)]
        struct Message {
            message: &'static str,
        }
        let response = Response::json(&Message { message: "Hello, World!" });
        assert_eq!(response.body.as_bytes(), br#"{"message":"Hello, World!"}"#);
        assert_eq!(response.content_type.as_deref(), Some("application/json"));
    }

    #[test]
    fn retry_after_is_never_zero_for_a_part_of_a_second() {
        let response = Response::error(503).retry_after(Duration::from_millis(200));
        assert_eq!(response.fields[0].1, "1");
        assert_eq!(response.body.as_bytes(), b"503 Service Unavailable\n");
    }
}
