//! What a request head may be: limits and policies, as the settings give them.
//!
//! One [`Rules`] serves a whole worker; a worker that trusts some peers more keeps a second one for the others
//! ([`Policy::for_untrusted_peers`]). Nothing here is mutable while requests are parsed.

/// Longest request line that a positive setting can allow, in bytes.
pub const REQUEST_LINE_BYTES_CEILING: usize = 8190;
/// Longest request line where the setting is 0, "unlimited": the memory of a worker still needs a bound.
pub const REQUEST_LINE_BYTES_UNLIMITED: usize = 1 << 20;
/// Most header fields that any setting can allow.
pub const FIELDS_CEILING: usize = 32_768;
/// Length of one field line when the setting is 0.
pub const FIELD_BYTES_DEFAULT: usize = 8190;
/// Longest field line that any setting can allow, in bytes.
pub const FIELD_BYTES_CEILING: usize = 1 << 20;

/// How large a request head may be. Each is clamped where it is used, so any value is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request line in bytes, without its CRLF; more than 8190 means 8190, 0 means 1 MiB. Over it: 414.
    pub request_line_bytes_max: usize,
    /// Most field lines; 0 or more than 32,768 means 32,768. Over it: 431.
    pub fields_max: usize,
    /// Longest field line in bytes, with its CRLF; 0 means 8190, more than 1 MiB means 1 MiB. Over it: 431.
    pub field_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { request_line_bytes_max: 4094, fields_max: 100, field_bytes_max: 8190 }
    }
}

impl Limits {
    /// Returns the longest request line in force, in bytes, without its CRLF.
    #[must_use]
    pub fn request_line(&self) -> usize {
        match self.request_line_bytes_max {
            0 => REQUEST_LINE_BYTES_UNLIMITED,
            bytes => bytes.min(REQUEST_LINE_BYTES_CEILING),
        }
    }

    /// Returns the number of field lines in force.
    #[must_use]
    pub fn fields(&self) -> usize {
        match self.fields_max {
            0 => FIELDS_CEILING,
            fields => fields.min(FIELDS_CEILING),
        }
    }

    /// Returns the longest field line in force, in bytes, with its CRLF.
    #[must_use]
    pub fn field_line(&self) -> usize {
        match self.field_bytes_max {
            0 => FIELD_BYTES_DEFAULT,
            bytes => bytes.min(FIELD_BYTES_CEILING),
        }
    }

    /// Returns how many bytes a head can have before it is certain to be refused: the bound of a read buffer.
    #[must_use]
    pub fn head_bytes_max(&self) -> usize {
        // An empty line before the request line, the line itself, the fields, the empty line at the end.
        2 + self.request_line() + 2 + self.fields() * self.field_line() + 2
    }
}

/// What happens to a field whose name holds an underscore, which CGI names cannot tell from a hyphen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderMap {
    /// The field is left out, silently; it still counts against the limits.
    #[default]
    Drop,
    /// The request is refused with 400.
    Refuse,
    /// The field is kept. Only for applications that do not map names.
    Dangerous,
}

/// What is tolerated beyond or beneath the letter of HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What happens to names with an underscore.
    pub header_map: HeaderMap,
    /// Names with an underscore that are kept whatever `header_map` says; `*` keeps all. Compared without case.
    pub forwarder_headers: Vec<Box<[u8]>>,
    /// Whether methods may be lower case, hold `#`, or have fewer than 3 or more than 20 letters.
    pub permit_unconventional_http_method: bool,
    /// Whether a target that begins with `https://` is served: the peer is a trusted proxy that has ended TLS. From
    /// others it is refused with 421, for nothing vouches for what it claims (RFC 9110 §7.4).
    pub permit_https_target: bool,
}

impl Policy {
    /// Returns the same policy for peers that may neither set forwarder headers nor speak of https.
    #[must_use]
    pub fn for_untrusted_peers(&self) -> Policy {
        Policy { forwarder_headers: Vec::new(), permit_https_target: false, ..self.clone() }
    }

    /// Whether `name`, which holds an underscore, is on the list of those a forwarder may set.
    pub(crate) fn is_forwarder_header(&self, name: &[u8]) -> bool {
        self.forwarder_headers
            .iter()
            .any(|known| **known == *b"*" || known.eq_ignore_ascii_case(name))
    }
}

/// Limits and policy together: all that [`parse_head`](crate::parse_head) needs to know besides the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How large a head may be.
    pub limits: Limits,
    /// What is tolerated.
    pub policy: Policy,
}
