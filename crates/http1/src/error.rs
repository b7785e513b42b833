//! Why a request or a response is refused: flat enums that know their status.

use std::fmt;

/// Why a request head is refused. The connection cannot be trusted afterwards: answer and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeadError {
    /// The first byte is that of a TLS record: somebody speaks https to a plain port.
    TlsHandshake,
    /// The HTTP/2 connection preface.
    Http2Preface,
    /// A CR that no LF follows.
    BareCr,
    /// An LF that no CR precedes.
    BareLf,
    /// The method is empty, no token, or unconventional where that is not permitted.
    Method,
    /// The request line is longer than the limit.
    RequestLineTooLong,
    /// A byte that no request target can hold, or no target at all.
    Target,
    /// The form of the target does not go with the method, or its authority is invalid.
    TargetForm,
    /// An `https` target from a peer that is not trusted to have seen TLS.
    HttpsTarget,
    /// No version, or something else in its place.
    Version,
    /// A version that is well written but not 1.x.
    UnsupportedVersion,
    /// A field line without colon, or a name that is empty or no token.
    FieldName,
    /// White space between a field's name and its colon.
    SpaceBeforeColon,
    /// A field line that begins with white space: obsolete line folding.
    FoldedLine,
    /// A control byte in a field's value.
    FieldValue,
    /// More fields than the limit.
    TooManyFields,
    /// A field line longer than the limit.
    FieldTooLong,
    /// A field name with an underscore, where these are refused.
    UnderscoreInName,
    /// HTTP/1.1 without Host.
    HostMissing,
    /// Host more than once.
    HostRepeated,
    /// Host that is not a host with an optional port.
    HostInvalid,
    /// Content-Type more than once.
    ContentTypeRepeated,
    /// Content-Length that is not one decimal number below 2^64.
    ContentLength,
    /// Content-Length more than once.
    ContentLengthRepeated,
    /// Both Content-Length and Transfer-Encoding.
    LengthAndCoding,
    /// Transfer-Encoding in HTTP/1.0.
    CodingInOldVersion,
    /// Transfer-Encoding that is no list of codings, or one where `chunked` is not last, or not there once.
    Coding,
    /// A transfer coding that this server does not decode.
    UnknownCoding,
    /// An expectation other than `100-continue`.
    Expectation,
}

impl HeadError {
    /// Returns the status to answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            HeadError::RequestLineTooLong => 414,
            HeadError::TooManyFields | HeadError::FieldTooLong => 431,
            HeadError::Expectation => 417,
            HeadError::HttpsTarget => 421,
            HeadError::UnknownCoding => 501,
            HeadError::UnsupportedVersion | HeadError::Http2Preface => 505,
            _ => 400,
        }
    }

    /// Returns what is wrong, in a few words for the client and the log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            HeadError::TlsHandshake => "TLS handshake on a plain port",
            HeadError::Http2Preface => "HTTP/2 without negotiation",
            HeadError::BareCr => "CR without LF",
            HeadError::BareLf => "LF without CR",
            HeadError::Method => "invalid method",
            HeadError::RequestLineTooLong => "request line too long",
            HeadError::Target => "invalid request target",
            HeadError::TargetForm => "request target does not suit the method",
            HeadError::HttpsTarget => "https target without TLS",
            HeadError::Version => "malformed HTTP version",
            HeadError::UnsupportedVersion => "unsupported HTTP version",
            HeadError::FieldName => "invalid field name",
            HeadError::SpaceBeforeColon => "space before colon",
            HeadError::FoldedLine => "folded field line",
            HeadError::FieldValue => "control character in field value",
            HeadError::TooManyFields => "too many header fields",
            HeadError::FieldTooLong => "header field too long",
            HeadError::UnderscoreInName => "underscore in field name",
            HeadError::HostMissing => "missing Host",
            HeadError::HostRepeated => "repeated Host",
            HeadError::HostInvalid => "invalid Host",
            HeadError::ContentTypeRepeated => "repeated Content-Type",
            HeadError::ContentLength => "invalid Content-Length",
            HeadError::ContentLengthRepeated => "repeated Content-Length",
            HeadError::LengthAndCoding => "Content-Length with Transfer-Encoding",
            HeadError::CodingInOldVersion => "Transfer-Encoding in HTTP/1.0",
            HeadError::Coding => "invalid Transfer-Encoding",
            HeadError::UnknownCoding => "unknown transfer coding",
            HeadError::Expectation => "unknown expectation",
        }
    }
}

/// Why a request body is refused. Where the next request begins is unknown: answer and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyError {
    /// A chunk size that is no hexadecimal number, or above 2^64.
    ChunkSize,
    /// A chunk extension that is malformed.
    ChunkExtension,
    /// The line with a chunk's size and extensions is longer than a field line may be.
    ChunkLineTooLong,
    /// The extensions of one body are longer than [`EXTENSION_BYTES_MAX`](crate::EXTENSION_BYTES_MAX) together.
    ExtensionsTooLong,
    /// A chunk's data is not followed by CRLF, or a line ends in a bare LF.
    ChunkEnd,
    /// A trailer line that is no field.
    Trailer,
    /// A field that may not stand in a trailer.
    TrailerForbidden,
    /// Trailers over the limits of the header.
    TrailersTooLarge,
}

impl BodyError {
    /// Returns the status to answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            BodyError::TrailersTooLarge => 431,
            _ => 400,
        }
    }

    /// Returns what is wrong, in a few words for the client and the log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            BodyError::ChunkSize => "invalid chunk size",
            BodyError::ChunkExtension => "invalid chunk extension",
            BodyError::ChunkLineTooLong => "chunk size line too long",
            BodyError::ExtensionsTooLong => "chunk extensions too long",
            BodyError::ChunkEnd => "chunk without CRLF",
            BodyError::Trailer => "invalid trailer",
            BodyError::TrailerForbidden => "forbidden trailer",
            BodyError::TrailersTooLarge => "trailers too large",
        }
    }
}

/// Why a response cannot be written as asked: a mistake of the application, answered with 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseError {
    /// A status below 200 or above 999; interim responses are written by `interim`.
    Status,
    /// A field name that is no token.
    FieldName,
    /// A field value with CR, LF, NUL or another control byte.
    FieldValue,
    /// A Content-Length that is no number, or given twice with different values.
    ContentLength,
}

impl ResponseError {
    /// Returns what is wrong, in a few words for the log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            ResponseError::Status => "invalid response status",
            ResponseError::FieldName => "invalid response field name",
            ResponseError::FieldValue => "invalid response field value",
            ResponseError::ContentLength => "invalid response content length",
        }
    }
}

macro_rules! display_reason {
    ($($error:ty),+) => {$(
        impl fmt::Display for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.reason())
            }
        }
        impl std::error::Error for $error {}
    )+};
}
display_reason!(HeadError, BodyError, ResponseError);
