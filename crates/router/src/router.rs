//! The tree of patterns, and a table of the paths without parameters beside it.

use std::fmt;

use crate::params::{Params, Values, matches_literal};
use crate::pattern::{self, Segment};

/// What a method and a path lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match<'r, 'p, T> {
    /// A route.
    Found {
        /// What was added for it.
        value: &'r T,
        /// What its parameters matched.
        params: Params<'r, 'p>,
    },
    /// OPTIONS for a path that has routes, but none for OPTIONS: answer 204 with this `Allow`.
    Options {
        /// The methods there are, such as `GET, HEAD, OPTIONS`.
        allow: &'r str,
    },
    /// The path has routes, but not for this method: answer 405 with this `Allow`.
    MethodNotAllowed {
        /// The methods there are, such as `GET, HEAD, OPTIONS`.
        allow: &'r str,
    },
    /// No pattern matches the path: answer 404.
    NotFound,
}

/// A route that cannot be added: a mistake in the application, found when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddError {
    /// The pattern is malformed.
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The method is no upper-case token.
    Method {
        /// The method.
        method: String,
    },
    /// Another route takes the same requests.
    Conflict {
        /// The method of both.
        method: String,
        /// The pattern that was to be added.
        pattern: String,
        /// The pattern that was there.
        existing: String,
    },
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddError::Pattern { pattern, reason } => write!(f, "invalid route {pattern}: {reason}"),
            AddError::Method { method } => write!(f, "invalid method {method:?} of a route"),
            AddError::Conflict { method, pattern, existing } if pattern == existing => {
                write!(f, "route {method} {pattern} is there twice")
            }
            AddError::Conflict { method, pattern, existing } => {
                write!(f, "route {method} {pattern} takes the same requests as {method} {existing}")
            }
        }
    }
}

impl std::error::Error for AddError {}

/// Routes by path and method.
#[derive(Clone, Debug)]
pub struct Router<T> {
    /// The tree of segments; the first is the root, before the path's leading slash.
    nodes: Vec<Node>,
    endpoints: Vec<Endpoint<T>>,
    /// Paths without parameters by their length: a path is compared with the few of its own length only.
    exact: Vec<Vec<(Box<[u8]>, usize)>>,
    /// `Allow` for `OPTIONS *`: every method of every route.
    allow_any: String,
}

#[derive(Clone, Debug, Default)]
struct Node {
    literals: Vec<(Box<[u8]>, usize)>,
    param: Option<usize>,
    /// The endpoint of `{*name}` under this node.
    rest: Option<usize>,
    /// The endpoint of the pattern that ends with this node.
    endpoint: Option<usize>,
}

/// Everything that one path, or one shape of paths, leads to.
#[derive(Clone, Debug)]
struct Endpoint<T> {
    routes: Vec<Route<T>>,
    /// Which of them is for GET: by far the most frequent method is not looked for.
    get: Option<usize>,
    allow: String,
}

#[derive(Clone, Debug)]
struct Route<T> {
    method: Box<str>,
    pattern: Box<str>,
    names: Vec<Box<str>>,
    value: T,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Router::new()
    }
}

impl<T> Router<T> {
    /// Creates a router without routes.
    #[must_use]
    pub fn new() -> Self {
        let allow_any = "OPTIONS".to_owned();
        Router { nodes: vec![Node::default()], endpoints: Vec::new(), exact: Vec::new(), allow_any }
    }

    /// Adds a route. A pattern is a path such as `/users/{id}` or `/static/{*path}`.
    ///
    /// # Errors
    ///
    /// The pattern or the method is malformed, or another route takes the same requests.
    pub fn add(&mut self, method: &str, pattern: &str, value: T) -> Result<(), AddError> {
        let is_method = |byte: u8| {
            byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        };
        if method.is_empty() || !method.bytes().all(is_method) {
            return Err(AddError::Method { method: method.to_owned() });
        }
        let segments = pattern::parse(pattern)
            .map_err(|reason| AddError::Pattern { pattern: pattern.to_owned(), reason })?;
        let names: Vec<Box<str>> = segments
            .iter()
            .filter_map(|segment| match *segment {
                Segment::Param(name) | Segment::Rest(name) => Some(name.into()),
                Segment::Literal(_) => None,
            })
            .collect();
        let endpoint = self.endpoint(&segments);
        if names.is_empty() {
            self.remember_exact(pattern.as_bytes(), endpoint);
        }

        let endpoint = &mut self.endpoints[endpoint];
        if let Some(existing) = endpoint.routes.iter().find(|route| &*route.method == method) {
            return Err(AddError::Conflict {
                method: method.to_owned(),
                pattern: pattern.to_owned(),
                existing: existing.pattern.to_string(),
            });
        }
        if method == "GET" {
            endpoint.get = Some(endpoint.routes.len());
        }
        endpoint.routes.push(Route {
            method: method.into(),
            pattern: pattern.into(),
            names,
            value,
        });
        endpoint.allow = allow(endpoint.routes.iter().map(|route| &*route.method));
        let routes = self.endpoints.iter().flat_map(|endpoint| &endpoint.routes);
        self.allow_any = allow(routes.map(|route| &*route.method));
        Ok(())
    }

    /// Finds what `method` and `path` lead to. `path` is as sent: undecoded, without a query. Allocates nothing.
    #[must_use]
    pub fn find<'p>(&self, method: &str, path: &'p [u8]) -> Match<'_, 'p, T> {
        let mut values = Values::of(path);
        let exact = self
            .exact
            .get(path.len())
            .and_then(|paths| paths.iter().find(|(known, _)| **known == *path));
        let endpoint = match (exact, path) {
            (Some(&(_, endpoint)), _) => Some(endpoint),
            (None, [b'/', rest @ ..]) => self.walk(0, rest, 0, &mut values),
            (None, b"*") if method == "OPTIONS" => {
                return Match::Options { allow: &self.allow_any };
            }
            (None, _) => None,
        };
        let Some(endpoint) = endpoint.and_then(|index| self.endpoints.get(index)) else {
            return Match::NotFound;
        };
        let get = || endpoint.routes.get(endpoint.get?);
        let route = match method {
            "GET" => get(),
            _ => match endpoint.routes.iter().find(|route| &*route.method == method) {
                None if method == "HEAD" => get(),
                route => route,
            },
        };
        match route {
            Some(route) => {
                Match::Found { value: &route.value, params: Params { names: &route.names, values } }
            }
            None if method == "OPTIONS" => Match::Options { allow: &endpoint.allow },
            None => Match::MethodNotAllowed { allow: &endpoint.allow },
        }
    }

    /// Finds the endpoint under `node` for what is left of the path. Every node is visited at most once, for it has
    /// one place in the tree and so one place in the path.
    fn walk<'p>(
        &self,
        node: usize,
        rest: &'p [u8],
        depth: usize,
        values: &mut Values<'p>,
    ) -> Option<usize> {
        let node = self.nodes.get(node)?;
        let end = rest.iter().position(|&byte| byte == b'/');
        let segment = &rest[..end.unwrap_or(rest.len())];
        let enter = |next: usize, depth: usize, values: &mut Values<'p>| match end {
            Some(end) => self.walk(next, &rest[end + 1..], depth, values),
            None => self.nodes.get(next)?.endpoint,
        };
        for (literal, next) in &node.literals {
            if matches_literal(segment, literal) {
                if let Some(found) = enter(*next, depth, values) {
                    return Some(found);
                }
                break;
            }
        }
        if let Some(next) = node.param.filter(|_| !segment.is_empty()) {
            values.set(depth, rest.len(), segment.len());
            if let Some(found) = enter(next, depth + 1, values) {
                return Some(found);
            }
        }
        let found = node.rest?;
        values.set(depth, rest.len(), rest.len());
        Some(found)
    }

    /// Returns the endpoint of a shape of paths, made if there was none.
    fn endpoint(&mut self, segments: &[Segment<'_>]) -> usize {
        let mut node = 0;
        for segment in segments {
            let fresh = self.nodes.len();
            let next = match *segment {
                Segment::Literal(text) => {
                    let literals = &mut self.nodes[node].literals;
                    match literals.iter().find(|(known, _)| **known == *text.as_bytes()) {
                        Some(&(_, next)) => next,
                        None => {
                            literals.push((text.as_bytes().into(), fresh));
                            fresh
                        }
                    }
                }
                Segment::Param(_) => *self.nodes[node].param.get_or_insert(fresh),
                Segment::Rest(_) => {
                    let endpoint = self.endpoints.len();
                    let endpoint = *self.nodes[node].rest.get_or_insert(endpoint);
                    return self.made(endpoint);
                }
            };
            if next == fresh {
                self.nodes.push(Node::default());
            }
            node = next;
        }
        let endpoint = self.endpoints.len();
        let endpoint = *self.nodes[node].endpoint.get_or_insert(endpoint);
        self.made(endpoint)
    }

    fn made(&mut self, endpoint: usize) -> usize {
        if endpoint == self.endpoints.len() {
            self.endpoints.push(Endpoint { routes: Vec::new(), get: None, allow: String::new() });
        }
        endpoint
    }

    fn remember_exact(&mut self, path: &[u8], endpoint: usize) {
        if self.exact.len() <= path.len() {
            self.exact.resize_with(path.len() + 1, Vec::new);
        }
        let paths = &mut self.exact[path.len()];
        if !paths.iter().any(|(known, _)| **known == *path) {
            paths.push((path.into(), endpoint));
        }
    }
}

/// Makes the value of `Allow`: the methods with routes, and those that are answered without one.
fn allow<'a>(methods: impl Iterator<Item = &'a str>) -> String {
    let mut methods: Vec<&str> = methods.collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.push("OPTIONS");
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}
