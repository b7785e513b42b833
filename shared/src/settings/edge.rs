//! What settings about proxies and the access log hold, and how they are written.

use serde::{Deserialize, Serialize};

use super::{Settings, parse};

/// What becomes of a header field whose name holds an underscore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderMap {
    /// It is left out.
    #[default]
    Drop,
    /// The request is refused.
    Refuse,
    /// It is kept.
    Dangerous,
}

/// Which versions of the PROXY protocol connections begin with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// None.
    #[default]
    Off,
    /// The line of text.
    V1,
    /// The binary header.
    V2,
    /// Either.
    Auto,
}

/// Which field of a trusted proxy names the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RealIp {
    /// None.
    #[default]
    Off,
    /// X-Forwarded-For.
    XForwardedFor,
    /// Forwarded (RFC 7239).
    Forwarded,
}

pub(super) fn header_map(slot: &mut HeaderMap, text: &str) -> Result<(), String> {
    *slot = match text.to_ascii_lowercase().as_str() {
        "drop" => HeaderMap::Drop,
        "refuse" => HeaderMap::Refuse,
        "dangerous" => HeaderMap::Dangerous,
        _ => return Err("drop, refuse or dangerous".into()),
    };
    Ok(())
}

pub(super) fn proxy_protocol(slot: &mut ProxyProtocol, text: &str) -> Result<(), String> {
    *slot = match text.to_ascii_lowercase().as_str() {
        "off" | "false" => ProxyProtocol::Off,
        "v1" => ProxyProtocol::V1,
        "v2" => ProxyProtocol::V2,
        "auto" | "true" => ProxyProtocol::Auto,
        _ => return Err("off, v1, v2 or auto".into()),
    };
    Ok(())
}

pub(super) fn real_ip(slot: &mut RealIp, text: &str) -> Result<(), String> {
    *slot = match text.to_ascii_lowercase().as_str() {
        "off" => RealIp::Off,
        "x-forwarded-for" => RealIp::XForwardedFor,
        "forwarded" => RealIp::Forwarded,
        _ => return Err("off, x-forwarded-for or forwarded".into()),
    };
    Ok(())
}

/// Addresses, networks or `*`, separated by commas; nothing means nobody.
pub(super) fn peers(slot: &mut Vec<String>, text: &str) -> Result<(), String> {
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        if net::AllowList::parse([one]).is_err() {
            return Err("addresses, networks without bits beyond their prefix, or *".into());
        }
        slot.push(one.to_owned());
    }
    Ok(())
}

/// Names of header fields, separated by commas; nothing means none.
pub(super) fn names(slot: &mut Vec<String>, text: &str) -> Result<(), String> {
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        if !is_token(one) {
            return Err("names of header fields".into());
        }
        slot.push(one.to_owned());
    }
    Ok(())
}

/// `NAME=VALUE`, separated by commas; nothing means none.
pub(super) fn scheme_headers(slot: &mut Vec<String>, text: &str) -> Result<(), String> {
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        match one.split_once('=') {
            Some((name, value)) if is_token(name) && !value.is_empty() => slot.push(one.to_owned()),
            _ => return Err("NAME=VALUE, the name being that of a header field".into()),
        }
    }
    Ok(())
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// gunicorn's grammar, which is Python's: `%(NAME)s`, with `%%` for a percent sign; or the name of a preset.
pub(super) fn access_format(slot: &mut String, text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        let conversion = rest
            .strip_prefix('(')
            .and_then(|named| named.find(')').map(|end| &named[end + 1..]))
            .map(|after| {
                after.trim_start_matches(|c: char| "#0- +.".contains(c) || c.is_ascii_digit())
            });
        match conversion
            .and_then(|after| after.strip_prefix(['s', 'd', 'i', 'r', 'a', 'f', 'x', 'u']))
        {
            Some(after) => rest = after,
            None => {
                return Err(
                    "json, ecs, or text with %(NAME)s in it and %% for a percent sign".into()
                );
            }
        }
    }
    if text.contains(['\n', '\r', '\0']) {
        return Err("a format of one line".into());
    }
    *slot = text.to_owned();
    Ok(())
}

/// Where syslog listens: as gunicorn writes it.
pub(super) fn syslog_addr(slot: &mut String, text: &str) -> Result<(), String> {
    let is_host = |rest: &str| {
        let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "514"));
        !host.is_empty() && parse::number(port, 1, 65_535).is_ok()
    };
    let is_valid = match text.split_once("://") {
        Some(("unix", path)) => {
            let (path, kind) = path.split_once('#').unwrap_or((path, "dgram"));
            path.starts_with('/') && matches!(kind, "dgram" | "stream")
        }
        Some(("udp" | "tcp", rest)) => is_host(rest),
        _ => false,
    };
    if !is_valid || text.contains('\0') {
        return Err("udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH#dgram (or #stream)".into());
    }
    *slot = text.to_owned();
    Ok(())
}

/// The facilities of syslog, by name; the place is the number.
pub const SYSLOG_FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// What is sent to syslog, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogPlan {
    /// Where syslog listens.
    pub address: String,
    /// Number of the facility.
    pub facility: u8,
    /// Name of the program.
    pub name: String,
}

impl Settings {
    /// How the error log goes to syslog; `None`: not at all.
    #[must_use]
    pub fn error_syslog(&self) -> Option<SyslogPlan> {
        self.syslog.then(|| self.syslog_plan("error"))
    }

    /// How the access log goes to syslog; `None`: not at all.
    #[must_use]
    pub fn access_syslog(&self) -> Option<SyslogPlan> {
        let wanted = self.syslog && !self.disable_redirect_access_to_syslog;
        wanted.then(|| self.syslog_plan("access"))
    }

    fn syslog_plan(&self, log: &str) -> SyslogPlan {
        let known = SYSLOG_FACILITIES.iter().position(|known| *known == self.syslog_facility);
        let name = match self.syslog_prefix.as_deref().or(self.proc_name.as_deref()) {
            Some(prefix) => format!("monoceros.{}.{log}", prefix.replace(':', ".")),
            None => format!("monoceros.{log}"),
        };
        // `user`, if it is none that is known; it was checked when it was read.
        let facility = known.and_then(|place| u8::try_from(place).ok()).unwrap_or(1);
        SyslogPlan { address: self.syslog_addr.clone(), facility, name }
    }
}

pub(super) fn syslog_facility(slot: &mut String, text: &str) -> Result<(), String> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_prefix("log_").unwrap_or(&lower);
    // gunicorn knows it by this name too.
    let name = if name == "security" { "auth" } else { name };
    if !SYSLOG_FACILITIES.contains(&name) {
        return Err("a facility of syslog, such as user, daemon or local0".into());
    }
    *slot = name.to_owned();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_checked_where_they_are_written() {
        let mut slot = String::new();
        for good in [
            "",
            "json",
            "%(h)s %(t)s \"%(r)s\" %(D)d 100%%",
            "%({x-request-id}i)s%(b)10s",
            "%(L).3f",
        ] {
            assert_eq!(access_format(&mut slot, good), Ok(()), "{good}");
            assert_eq!(slot, good);
        }
        for bad in ["%", "%h", "%(h)", "%(h", "%(h)z", "100%", "a\nb"] {
            assert!(access_format(&mut slot, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_are_divided_at_commas_and_may_be_empty() {
        let mut slot = Vec::new();
        peers(&mut slot, "127.0.0.1, ::1,10.0.0.0/8,*").unwrap();
        assert_eq!(slot, ["127.0.0.1", "::1", "10.0.0.0/8", "*"]);
        for bad in ["10.0.0.1/8", "host"] {
            assert!(peers(&mut slot, bad).is_err());
        }
        let mut slot = Vec::new();
        peers(&mut slot, "").unwrap();
        names(&mut slot, "").unwrap();
        assert_eq!(slot, [""; 0]);
        assert!(names(&mut slot, "a b").is_err());
        assert!(scheme_headers(&mut slot, "X-A").is_err());
        scheme_headers(&mut slot, "X-A=https,X-B=on").unwrap();
        assert_eq!(slot, ["X-A=https", "X-B=on"]);
    }

    #[test]
    fn syslog_is_addressed_as_gunicorn_does() {
        let mut slot = String::new();
        for good in [
            "udp://localhost:514",
            "tcp://[::1]:601",
            "unix:///dev/log",
            "unix:///dev/log#stream",
            "udp://host",
        ] {
            assert_eq!(syslog_addr(&mut slot, good), Ok(()), "{good}");
        }
        for bad in ["", "localhost", "udp://", "udp://h:x", "unix://rel", "unix:///a#x"] {
            assert!(syslog_addr(&mut slot, bad).is_err(), "{bad}");
        }
    }
}
