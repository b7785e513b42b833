//! Routes by example, and against a plain way of matching.

#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use router::{AddError, Match, Router, percent_decode};

fn router(patterns: &[(&str, &str)]) -> Router<String> {
    let mut router = Router::new();
    for (method, pattern) in patterns {
        router.add(method, pattern, format!("{method} {pattern}")).expect("a route");
    }
    router
}

/// What a request leads to, in words.
fn find(router: &Router<String>, method: &str, path: &str) -> String {
    match router.find(method, path.as_bytes()) {
        Match::Found { value, params } => {
            let params =
                params.iter().map(|(name, value)| format!(" {name}={}", value.escape_ascii()));
            std::iter::once(value.clone()).chain(params).collect()
        }
        Match::Options { allow } => format!("204 {allow}"),
        Match::MethodNotAllowed { allow } => format!("405 {allow}"),
        Match::NotFound => "404".to_owned(),
    }
}

#[test]
fn paths_are_compared_segment_by_segment() {
    let router = router(&[
        ("GET", "/"),
        ("GET", "/json"),
        ("GET", "/queries"),
        ("GET", "/queries/{n}"),
        ("GET", "/users/{id}/posts/{post}"),
        ("GET", "/static/{*path}"),
        ("GET", "/a/"),
    ]);
    let cases = [
        ("/", "GET /"),
        ("/json", "GET /json"),
        ("/json/", "404"),
        ("//json", "404"),
        ("/JSON", "404"),
        ("/jso", "404"),
        ("/jsonn", "404"),
        ("/queries", "GET /queries"),
        ("/queries/", "404"),
        ("/queries/20", "GET /queries/{n} n=20"),
        ("/queries/20/", "404"),
        ("/queries/20/1", "404"),
        ("/users/7/posts/x-y", "GET /users/{id}/posts/{post} id=7 post=x-y"),
        ("/users//posts/1", "404"),
        ("/static", "404"),
        ("/static/", "GET /static/{*path} path="),
        ("/static/a/../b//c", "GET /static/{*path} path=a/../b//c"),
        ("/a", "404"),
        ("/a/", "GET /a/"),
        ("", "404"),
        ("json", "404"),
        ("*", "404"),
    ];
    for (path, want) in cases {
        assert_eq!(find(&router, "GET", path), want, "{path}");
    }
}

#[test]
fn leftmost_literal_wins_and_others_are_tried_after_it() {
    let router = router(&[
        ("GET", "/{a}/x"),
        ("GET", "/b/{c}"),
        ("GET", "/b/y/z"),
        ("GET", "/{*rest}"),
        ("POST", "/b/{c}"),
    ]);
    assert_eq!(find(&router, "GET", "/b/x"), "GET /b/{c} c=x");
    assert_eq!(find(&router, "GET", "/q/x"), "GET /{a}/x a=q");
    assert_eq!(find(&router, "GET", "/b/y/z"), "GET /b/y/z");
    assert_eq!(find(&router, "GET", "/b/y/q"), "GET /{*rest} rest=b/y/q");
    assert_eq!(find(&router, "GET", "/b/y"), "GET /b/{c} c=y");
    assert_eq!(find(&router, "GET", "/"), "GET /{*rest} rest=");
    // The path decides, then the method.
    assert_eq!(find(&router, "POST", "/q/x"), "405 GET, HEAD, OPTIONS");
    assert_eq!(find(&router, "POST", "/b/x"), "POST /b/{c} c=x");
}

#[test]
fn methods_that_no_route_has_are_told_which_there_are() {
    let router = router(&[
        ("GET", "/a"),
        ("POST", "/a"),
        ("PUT", "/b"),
        ("OPTIONS", "/c"),
        ("HEAD", "/d"),
        ("GET", "/d"),
    ]);
    assert_eq!(find(&router, "HEAD", "/a"), "GET /a");
    assert_eq!(find(&router, "HEAD", "/d"), "HEAD /d");
    assert_eq!(find(&router, "HEAD", "/b"), "405 OPTIONS, PUT");
    assert_eq!(find(&router, "DELETE", "/a"), "405 GET, HEAD, OPTIONS, POST");
    assert_eq!(find(&router, "get", "/a"), "405 GET, HEAD, OPTIONS, POST");
    assert_eq!(find(&router, "OPTIONS", "/a"), "204 GET, HEAD, OPTIONS, POST");
    assert_eq!(find(&router, "OPTIONS", "/c"), "OPTIONS /c");
    assert_eq!(find(&router, "OPTIONS", "/none"), "404");
    assert_eq!(find(&router, "OPTIONS", "*"), "204 GET, HEAD, OPTIONS, POST, PUT");
}

#[test]
fn percent_encoding_divides_nothing_and_hides_nothing() {
    let router = router(&[
        ("GET", "/json"),
        ("GET", "/f/{name}"),
        ("GET", "/f/{name}/x"),
        ("GET", "/straße"),
    ]);
    assert_eq!(find(&router, "GET", "/%6Ason"), "GET /json");
    assert_eq!(find(&router, "GET", "/%6aso%6E"), "GET /json");
    assert_eq!(find(&router, "GET", "%2Fjson"), "404");
    assert_eq!(find(&router, "GET", "/jso%6"), "404");
    assert_eq!(find(&router, "GET", "/jso%6g"), "404");
    assert_eq!(find(&router, "GET", "/json%"), "404");
    assert_eq!(find(&router, "GET", "/f/a%2Fx"), "GET /f/{name} name=a%2Fx");
    assert_eq!(find(&router, "GET", "/stra%C3%9Fe"), "GET /straße");

    let Match::Found { params, .. } = router.find("GET", b"/f/a%2Fb%20c+d%00") else {
        panic!("not found")
    };
    assert_eq!(params.decode("name").as_deref(), Some(&b"a/b c+d\0"[..]));
    assert_eq!((params.get("other"), params.decode("other")), (None, None));
    let Match::Found { params, .. } = router.find("GET", b"/f/100%") else { panic!("not found") };
    assert_eq!((params.get("name"), params.decode("name")), (Some(&b"100%"[..]), None));
    assert_eq!(percent_decode(b"a%41%").as_deref(), None);
}

#[test]
fn conflicts_name_both_routes() {
    let mut router = router(&[("GET", "/users/{id}"), ("GET", "/static/{*path}"), ("GET", "/a")]);
    router.add("POST", "/users/{user}", String::new()).expect("another method");
    for (pattern, existing) in
        [("/users/{name}", "/users/{id}"), ("/static/{*rest}", "/static/{*path}"), ("/a", "/a")]
    {
        let error = router.add("GET", pattern, String::new()).expect_err("a conflict");
        assert!(
            error.to_string().contains(pattern) && error.to_string().contains(existing),
            "{error}"
        );
        assert!(matches!(error, AddError::Conflict { .. }));
    }
    assert_eq!(find(&router, "GET", "/a"), "GET /a");
}

#[test]
fn malformed_routes_are_errors() {
    let patterns = [
        "",
        "a",
        "{a}",
        "/{}",
        "/{*}",
        "/{a",
        "/a}",
        "/a{b}",
        "/{a}b",
        "/{*a}/b",
        "/{a}/{a}",
        "/{a}/{*a}",
        "/{a-b}",
        "/a?b",
        "/a#b",
        "/%41",
        "/{1}/{2}/{3}/{4}/{5}/{6}/{7}/{8}/{9}",
    ];
    for pattern in patterns {
        let error = Router::new().add("GET", pattern, ()).expect_err(pattern);
        assert!(matches!(error, AddError::Pattern { .. }), "{pattern}: {error}");
    }
    for method in ["", "get", "GE T", "GET,"] {
        assert_eq!(
            Router::new().add(method, "/", ()),
            Err(AddError::Method { method: method.to_owned() })
        );
    }
    Router::new().add("GET", "/{1}/{2}/{3}/{4}/{5}/{6}/{7}/{8}", ()).expect("eight parameters");
}

/// The plain way: every pattern against the path, the best by literals from the left.
fn plainly<'a>(patterns: &[&'a str], path: &str) -> Option<&'a str> {
    let rank = |pattern: &str| -> Option<Vec<u8>> {
        let mut segments = path.strip_prefix('/')?.split('/');
        let mut rank = Vec::new();
        for wanted in pattern[1..].split('/') {
            if wanted.starts_with("{*") {
                segments.next()?;
                rank.push(2);
                return Some(rank);
            }
            let segment = segments.next()?;
            match wanted.starts_with('{') {
                true if segment.is_empty() => return None,
                true => rank.push(1),
                false if segment != wanted => return None,
                false => rank.push(0),
            }
        }
        segments.next().is_none().then_some(rank)
    };
    let ranked = patterns.iter().filter_map(|pattern| Some((rank(pattern)?, *pattern)));
    ranked.min().map(|(_, pattern)| pattern)
}

#[test]
fn finds_what_the_plain_way_finds() {
    let mut random = fastrand::Rng::with_seed(3);
    let words = ["a", "b", "cc", "", "{x}"];
    for _ in 0..400 {
        let mut router = Router::new();
        let mut patterns: Vec<String> = Vec::new();
        for _ in 0..random.usize(1..12) {
            let mut names = 0..;
            let mut pattern: String = (0..random.usize(1..4))
                .map(|_| match words[random.usize(..words.len())] {
                    "{x}" => format!("/{{p{}}}", names.next().expect("a number")),
                    word => format!("/{word}"),
                })
                .collect();
            if random.u8(..4) == 0 {
                pattern.push_str("/{*rest}");
            }
            if router.add("GET", &pattern, pattern.clone()).is_ok() {
                patterns.push(pattern);
            }
        }
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        for _ in 0..40 {
            let path: String = (0..random.usize(1..5))
                .map(|_| format!("/{}", ["a", "b", "cc", "", "d"][random.usize(..5)]))
                .collect();
            let found = match router.find("GET", path.as_bytes()) {
                Match::Found { value, .. } => Some(value.as_str()),
                Match::NotFound => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(found, plainly(&patterns, &path), "{path} in {patterns:?}");
        }
    }
}
