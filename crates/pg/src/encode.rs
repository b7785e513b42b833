//! Writing queries: Bind, Execute and Sync by hand, the rare messages by `postgres-protocol`.

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use postgres_types::{Format, IsNull, ToSql, Type};

use crate::error::{Error, Kind};
use crate::statement::{Inner as Statement, Shape};

/// The end of Bind: all results binary. Then Execute of the unnamed portal without a row limit, and Sync.
const TAIL: &[u8] = b"\0\x01\0\x01E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";

/// The same with a Describe of the portal before Execute.
const TAIL_DESCRIBED: &[u8] = b"\0\x01\0\x01D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";

/// How a Bind of the unnamed statement begins: tag, room for the length, the unnamed portal, the name.
const HEAD_UNNAMED: &[u8] = b"B\0\0\0\0\0\0";

/// Bytes of the tails that belong to the Bind message.
const TAIL_OF_BIND: usize = 4;

/// Appends Bind, Execute and Sync; on an error `out` is as it was.
#[inline]
pub(crate) fn query<P: ToSql + ?Sized>(
    statement: &Statement,
    shape: &Shape,
    named: bool,
    params: &[&P],
    out: &mut BytesMut,
) -> Result<(), Error> {
    let start = out.len();
    let result = if named {
        bind(statement.bind_head(), shape, params, TAIL, out)
    } else {
        // The types are given, so that the server reads the parameters as what they were encoded as. Described each
        // time: no server notices for us that a schema change has given an unnamed statement other columns.
        frontend::parse(
            "",
            statement.sql(),
            shape.params.iter().map(postgres_types::Type::oid),
            out,
        )
        .map_err(unencodable)
        .and_then(|()| bind(HEAD_UNNAMED, shape, params, TAIL_DESCRIBED, out))
    };
    if result.is_err() {
        out.truncate(start);
    }
    result
}

#[inline]
fn bind<P: ToSql + ?Sized>(
    head: &[u8],
    shape: &Shape,
    params: &[&P],
    tail: &[u8],
    out: &mut BytesMut,
) -> Result<(), Error> {
    if params.len() != shape.params.len() {
        return Err(miscounted(params.len(), shape.params.len()));
    }
    let count = u16::try_from(params.len()).map_err(unencodable)?;
    out.reserve(head.len() + 32 + params.len() * 16 + tail.len());
    let start = out.len() + 1;
    out.extend_from_slice(head);
    let pairs = || params.iter().zip(&shape.params);
    if pairs().all(|(param, kind)| matches!(param.encode_format(kind), Format::Binary)) {
        let [high, low] = count.to_be_bytes();
        // One format for all, and the number of values.
        out.extend_from_slice(&[0, 1, 0, 1, high, low]);
    } else {
        out.extend_from_slice(&count.to_be_bytes());
        for (param, kind) in pairs() {
            let format = match param.encode_format(kind) {
                Format::Text => 0_u16,
                Format::Binary => 1,
            };
            out.extend_from_slice(&format.to_be_bytes());
        }
        out.extend_from_slice(&count.to_be_bytes());
    }
    for (index, (param, kind)) in params.iter().zip(&shape.params).enumerate() {
        let at = out.len();
        out.extend_from_slice(&[0xff; 4]);
        match param.to_sql_checked(kind, out) {
            Ok(IsNull::Yes) => out.truncate(at + 4),
            Ok(IsNull::No) => {
                let length = i32::try_from(out.len() - at - 4).map_err(unencodable)?;
                out[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
            Err(why) => return Err(unfit(index, kind, why)),
        }
    }
    out.extend_from_slice(tail);
    let length =
        i32::try_from(out.len() - start - (tail.len() - TAIL_OF_BIND)).map_err(unencodable)?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Appends Parse, Describe and Sync, under the statement's name or without one.
///
/// The name is closed first: after a schema change, or behind a pooler, the server may still hold an older plan.
pub(crate) fn parse(statement: &Statement, named: bool, out: &mut BytesMut) -> Result<(), Error> {
    let start = out.len();
    let name = if named { statement.name() } else { "" };
    let shape = statement.shape();
    let params = shape.iter().flat_map(|shape| &shape.params).map(postgres_types::Type::oid);
    let result = frontend::close(b'S', name, out)
        .and_then(|()| frontend::parse(name, statement.sql(), params, out))
        .and_then(|()| frontend::describe(b'S', name, out));
    match result {
        Ok(()) => frontend::sync(out),
        Err(why) => {
            out.truncate(start);
            return Err(unencodable(why));
        }
    }
    Ok(())
}

/// Appends Close and Sync for a name that is used no more.
pub(crate) fn close(statement: &Statement, out: &mut BytesMut) {
    // A name of ours holds no zero byte, the only thing that could be refused.
    if frontend::close(b'S', statement.name(), out).is_ok() {
        frontend::sync(out);
    }
}

#[cold]
fn miscounted(given: usize, wanted: usize) -> Error {
    Error::new(Kind::Encode, format!("{given} parameters given for a statement with {wanted}"))
}

#[cold]
fn unfit(index: usize, kind: &Type, why: Box<dyn std::error::Error + Sync + Send>) -> Error {
    let what = format!("parameter ${} cannot be sent as {kind}", index + 1);
    Error::with_source(Kind::Encode, what, why)
}

#[cold]
fn unencodable(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(Kind::Encode, "the query cannot be encoded", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Statement;

    fn shape(params: &[Type]) -> Shape {
        Shape { params: params.to_vec(), columns: Vec::new() }
    }

    /// The hand-written messages are those of `postgres-protocol`.
    #[test]
    fn same_bytes_as_the_library() {
        let statement = Statement::new("SELECT $1, $2, $3", 7, 1);
        let shape = shape(&[Type::INT4, Type::TEXT, Type::INT8]);
        let mut ours = BytesMut::from(&b"before"[..]);
        let params: [&dyn ToSql; 3] = [&5_i32, &"text", &None::<i64>];
        query(&statement.0, &shape, true, &params, &mut ours).unwrap();

        let mut theirs = BytesMut::from(&b"before"[..]);
        let values: [Option<&[u8]>; 3] = [Some(&[0, 0, 0, 5]), Some(b"text"), None];
        frontend::bind(
            "",
            "m7",
            [1],
            values,
            |value, out| {
                Ok(match value {
                    Some(bytes) => {
                        out.extend_from_slice(bytes);
                        postgres_protocol::IsNull::No
                    }
                    None => postgres_protocol::IsNull::Yes,
                })
            },
            [1],
            &mut theirs,
        )
        .map_err(|_| "bind")
        .unwrap();
        frontend::execute("", 0, &mut theirs).unwrap();
        frontend::sync(&mut theirs);
        assert_eq!(ours, theirs);
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let statement = Statement::new("SELECT $1", 1, 1);
        let shape = shape(&[Type::INT4]);
        let mut out = BytesMut::from(&b"before"[..]);
        for params in [&[&"text" as &(dyn ToSql + Sync)][..], &[], &[&1_i32, &2_i32]] {
            for named in [true, false] {
                let error = query(&statement.0, &shape, named, params, &mut out).unwrap_err();
                assert!(!error.is_unavailable());
                assert_eq!(&out[..], b"before");
            }
        }
    }
}
