//! Request targets and hosts: which form goes with which method, and where the path begins.

use crate::chars::{self, REG_NAME};
use crate::error::HeadError;
use crate::head::Method;

/// A request target taken apart. The parts are borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) authority: Option<&'a [u8]>,
    pub(crate) path: &'a [u8],
    pub(crate) query: Option<&'a [u8]>,
    pub(crate) is_https: bool,
}

/// Takes apart a target whose bytes are all of the class `TARGET`.
#[inline]
pub(crate) fn split<'a>(method: Method<'_>, target: &'a [u8]) -> Result<Target<'a>, HeadError> {
    match (method, target) {
        (Method::Connect, _) => authority_form(target),
        (_, [b'/', ..]) => {
            let (path, query) = split_query(target);
            Ok(Target { authority: None, path, query, is_https: false })
        }
        (Method::Options, b"*") => {
            Ok(Target { authority: None, path: target, query: None, is_https: false })
        }
        _ => absolute_form(target),
    }
}

#[inline]
fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// `http://authority[/path][?query]`; an empty path is `/`. User information is refused (RFC 9110 §4.2.4).
fn absolute_form(target: &[u8]) -> Result<Target<'_>, HeadError> {
    let colon = memchr::memchr(b':', target).ok_or(HeadError::TargetForm)?;
    let (scheme, rest) = target.split_at(colon);
    let is_https = scheme.eq_ignore_ascii_case(b"https");
    if !is_https && !scheme.eq_ignore_ascii_case(b"http") {
        return Err(HeadError::TargetForm);
    }
    let rest = rest.strip_prefix(b"://").ok_or(HeadError::TargetForm)?;
    let end = rest.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (host, _) = split_port(authority).ok_or(HeadError::TargetForm)?;
    if host.is_empty() {
        return Err(HeadError::TargetForm);
    }
    let (path, query) = split_query(rest);
    let path = if path.is_empty() { b"/" } else { path };
    Ok(Target { authority: Some(authority), path, query, is_https })
}

/// `host:port`, both needed.
fn authority_form(target: &[u8]) -> Result<Target<'_>, HeadError> {
    match split_port(target) {
        Some((host, Some(port))) if !host.is_empty() && !port.is_empty() => {
            Ok(Target { authority: Some(target), path: b"", query: None, is_https: false })
        }
        _ => Err(HeadError::TargetForm),
    }
}

/// Whether `host` is a valid value of Host: `uri-host [ ":" port ]`, or nothing.
#[inline]
pub(crate) fn is_valid_host(host: &[u8]) -> bool {
    split_port(host).is_some()
}

/// Divides `uri-host [ ":" port ]`; `None` where it is neither a name, an address nor a port.
#[inline]
fn split_port(authority: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let end = match authority {
        [b'[', ..] => ip_literal_len(authority)?,
        _ => reg_name_len(authority)?,
    };
    match authority.split_at(end) {
        (host, []) => Some((host, None)),
        (host, [b':', port @ ..]) if is_port(port) => Some((host, Some(port))),
        _ => None,
    }
}

/// `*DIGIT`, and no more than 65535.
pub(crate) fn is_port(port: &[u8]) -> bool {
    let mut number = 0u32;
    port.iter().all(|&digit| {
        number = (number * 10).saturating_add(u32::from(digit.wrapping_sub(b'0'))).min(1 << 20);
        digit.is_ascii_digit() && number <= 65_535
    })
}

#[inline]
fn reg_name_len(authority: &[u8]) -> Option<usize> {
    match authority.iter().position(|&byte| !chars::is(byte, REG_NAME)) {
        None => Some(authority.len()),
        Some(end) if authority[end] == b':' => Some(end),
        Some(escape) => escaped_name_len(authority, escape),
    }
}

/// As [`reg_name_len`], from a byte on that is no plain one.
#[cold]
fn escaped_name_len(authority: &[u8], mut at: usize) -> Option<usize> {
    while let Some(&byte) = authority.get(at) {
        if chars::is(byte, REG_NAME) {
            at += 1;
        } else if byte == b'%' {
            let digits = authority.get(at + 1..at + 3)?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            at += 3;
        } else {
            return (byte == b':').then_some(at);
        }
    }
    Some(at)
}

/// `"[" ( IPv6address / IPvFuture ) "]"`.
fn ip_literal_len(authority: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b']', authority)?;
    let inside = std::str::from_utf8(&authority[1..end]).ok()?;
    let valid = match inside.as_bytes() {
        [b'v' | b'V', future @ ..] => {
            let dot = memchr::memchr(b'.', future)?;
            let (version, address) = (&future[..dot], &future[dot + 1..]);
            !version.is_empty()
                && version.iter().all(u8::is_ascii_hexdigit)
                && !address.is_empty()
                && address.iter().all(|&byte| byte == b':' || chars::is(byte, REG_NAME))
        }
        _ => inside.parse::<std::net::Ipv6Addr>().is_ok(),
    };
    valid.then_some(end + 1)
}
