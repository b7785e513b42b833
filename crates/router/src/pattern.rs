//! Route patterns, as applications write them.

/// Most parameters of one pattern.
pub const PARAMS_MAX: usize = 8;

/// One segment of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment<'a> {
    Literal(&'a str),
    Param(&'a str),
    Rest(&'a str),
}

/// Takes a pattern apart. The error is what is wrong, for [`AddError`](crate::AddError).
pub(crate) fn parse(pattern: &str) -> Result<Vec<Segment<'_>>, &'static str> {
    let Some(path) = pattern.strip_prefix('/') else {
        return Err("it does not begin with a slash");
    };
    if pattern.contains(['%', '?', '#']) {
        return Err("it holds '%', '?' or '#': write the decoded path alone");
    }
    let mut segments = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for text in path.split('/') {
        if let Some(Segment::Rest(_)) = segments.last() {
            return Err("something follows {*name}");
        }
        let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let segment = match inside {
            Some(name) => match name.strip_prefix('*') {
                Some(name) => Segment::Rest(name),
                None => Segment::Param(name),
            },
            None if text.contains(['{', '}']) => {
                return Err("a parameter must be a whole segment: {name} or {*name}");
            }
            None => Segment::Literal(text),
        };
        if let Segment::Param(name) | Segment::Rest(name) = segment {
            if name.is_empty()
                || !name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
            {
                return Err("a parameter's name must be letters, digits and '_'");
            }
            if names.contains(&name) {
                return Err("two parameters have the same name");
            }
            names.push(name);
            if PARAMS_MAX < names.len() {
                return Err("it has more than 8 parameters");
            }
        }
        segments.push(segment);
    }
    Ok(segments)
}
