//! An application that says anything: no field and no second response slips through.
//!
//! The input is a list of names and values, each ended by 0xff; the first two bytes are the status and the request.

#![no_main]

use http1::{Encoder, Exchange, Stamp, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [status, request, rest @ ..] = input else { return };
    let version = if request & 1 == 0 { Version::Http11 } else { Version::Http10 };
    let exchange = Exchange {
        version,
        is_head: request & 2 != 0,
        is_connect: request & 4 != 0,
        keep_alive: request & 8 != 0,
    };
    let stamp = Stamp::new(b"Sun, 06 Nov 1994 08:49:37 GMT");
    let mut out = Vec::new();
    let Ok(mut encoder) = Encoder::new(&mut out, exchange, &stamp, 200 + u16::from(*status)) else {
        return;
    };
    let mut given = 0;
    let mut parts = rest.split(|&byte| byte == 0xff);
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        given += usize::from(encoder.field(name, value).is_ok());
    }
    let mut body = if request & 16 == 0 { encoder.chunked() } else { encoder.length(3) };
    let head = out.len();
    body.write(&mut out, b"abc");
    let _ = body.finish(&mut out);

    let text = &out[..head];
    let ends = text.windows(4).filter(|window| window == b"\r\n\r\n").count();
    assert!(text.ends_with(b"\r\n\r\n") && ends == 1, "one end of the head");
    let lines = text.windows(2).filter(|window| window == b"\r\n").count();
    // Status line, Server, Date, framing, Connection, the empty line.
    assert!(lines <= given + 6, "{lines} lines of {given} fields");
    assert_eq!(text.iter().filter(|&&byte| byte == b'\n' || byte == b'\r').count(), 2 * lines);
});
