//! An application: which handler answers what, and the state they share.

use std::future::Future;

use http1::{Head, Method};
use router::{Match, Router};

use crate::body::BODY_BYTES_MAX;
use crate::context::Context;
use crate::files::Files;
use crate::request::{OwnedRequest, Request};
use crate::response::{IntoResponse, Response};
use crate::run::BootError;
use crate::service::{Admission, Answer, Content, Service, Task};
use crate::via::Via;

/// A handler that answers at once.
type Plain<S> = Box<dyn Fn(&Request<'_>, &Context<S>) -> Response>;
/// A handler that answers later.
type Later<S> = Box<dyn Fn(&Request<'_>, &Context<S>) -> Task>;

struct Handled<S> {
    /// Number of the route's pattern.
    route: u16,
    handler: Handler<S>,
}

enum Handler<S> {
    Plain(Plain<S>),
    Later(Later<S>),
}

/// An application: routes, and one object that all handlers of a worker share.
///
/// A plain handler is called with the whole request, body included, and answers at once. An asynchronous one is
/// called when the head is there; it takes what it needs out of the borrowed request, and returns a future.
///
/// ```
/// use worker::{App, Response};
///
/// let app = App::new()
///     .get("/hello/{name}", |request, _| match request.param("name") {
///         Some(name) => Response::text(format!("Hello, {name}!")),
///         None => Response::error(404),
///     })
///     .get_async("/slow", |_, cx| {
///         let cx = cx.clone();
///         async move {
///             cx.sleep(std::time::Duration::from_secs(1)).await;
///             "at last"
///         }
///     });
/// # let _ = app;
/// ```
pub struct App<S = ()> {
    state: S,
    router: Router<Handled<S>>,
    /// The patterns by number, for metrics; the first stands for none.
    patterns: Vec<String>,
    /// The first thing that could not be added; reported when the application is started.
    mistake: Option<BootError>,
    body_bytes_max: Option<u64>,
}

impl App<()> {
    /// An application without state and without routes.
    #[must_use]
    pub fn new() -> App<()> {
        App::with_state(())
    }
}

impl Default for App<()> {
    fn default() -> App<()> {
        App::new()
    }
}

impl<S: 'static> App<S> {
    /// An application whose handlers share `state`: one object per worker, which need be neither `Send` nor `Sync`.
    #[must_use]
    pub fn with_state(state: S) -> App<S> {
        App {
            state,
            router: Router::new(),
            patterns: vec![scoreboard::ROUTE_OTHER.to_owned()],
            mistake: None,
            body_bytes_max: None,
        }
    }

    /// Answers GET (and HEAD) of `path` at once.
    ///
    /// A path may hold parameters, `/users/{id}`, and end with `/{*rest}`.
    #[must_use]
    pub fn get<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request<'_>, &Context<S>) -> R + 'static,
    ) -> App<S> {
        self.route(Method::Get, path, handler)
    }

    /// Answers POST of `path` at once; the body was gathered before.
    #[must_use]
    pub fn post<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request<'_>, &Context<S>) -> R + 'static,
    ) -> App<S> {
        self.route(Method::Post, path, handler)
    }

    /// Answers GET (and HEAD) of `path` by a future.
    #[must_use]
    pub fn get_async<F>(
        self,
        path: &str,
        handler: impl Fn(&Request<'_>, &Context<S>) -> F + 'static,
    ) -> App<S>
    where
        F: Future<Output: IntoResponse> + 'static,
    {
        self.route_async(Method::Get, path, handler)
    }

    /// Answers POST of `path` by a future, which may read the body.
    #[must_use]
    pub fn post_async<F>(
        self,
        path: &str,
        handler: impl Fn(&Request<'_>, &Context<S>) -> F + 'static,
    ) -> App<S>
    where
        F: Future<Output: IntoResponse> + 'static,
    {
        self.route_async(Method::Post, path, handler)
    }

    /// Answers `method` of `path` at once.
    #[must_use]
    pub fn route<R: IntoResponse>(
        self,
        method: Method<'_>,
        path: &str,
        handler: impl Fn(&Request<'_>, &Context<S>) -> R + 'static,
    ) -> App<S> {
        let handler =
            move |request: &Request<'_>, cx: &Context<S>| handler(request, cx).into_response();
        self.add(method, path, Handler::Plain(Box::new(handler)))
    }

    /// Answers `method` of `path` by a future.
    #[must_use]
    pub fn route_async<F>(
        self,
        method: Method<'_>,
        path: &str,
        handler: impl Fn(&Request<'_>, &Context<S>) -> F + 'static,
    ) -> App<S>
    where
        F: Future<Output: IntoResponse> + 'static,
    {
        let handler = move |request: &Request<'_>, cx: &Context<S>| -> Task {
            let answer = handler(request, cx);
            Box::pin(async move { answer.await.into_response() })
        };
        self.add(method, path, Handler::Later(Box::new(handler)))
    }

    /// Answers GET (and HEAD) of everything under `prefix` from the files of a folder.
    ///
    /// `ETag` and `Last-Modified`, conditional requests and single ranges are seen to. Nothing outside the folder and no
    /// hidden file is served; symbolic links are followed inside it. A folder that is not there fails the start.
    ///
    /// ```no_run
    /// use worker::{App, Files};
    ///
    /// let app = App::new()
    ///     .files("/static", "assets")
    ///     .files("/downloads", Files::of("/srv/downloads").index(None).cache_control("max-age=3600"));
    /// # let _ = app;
    /// ```
    #[must_use]
    pub fn files(mut self, prefix: &str, files: impl Into<Files>) -> App<S> {
        let files = files.into();
        if let Err(error) = files.check() {
            let folder = files.folder().display();
            let mistake = format!("cannot serve the files of {folder}: {error}");
            self.mistake.get_or_insert(mistake.into());
        }
        let pattern = format!("{}/{{*rest}}", prefix.trim_end_matches('/'));
        self.get(&pattern, move |request, _| {
            files.respond(request, request.params.get("rest").unwrap_or_default())
        })
    }

    /// Sets the largest request body that is gathered, in bytes; it stays within the setting
    /// `limit_request_body`. Larger ones are refused with 413.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: u64) -> App<S> {
        self.body_bytes_max = Some(bytes);
        self
    }

    fn add(mut self, method: Method<'_>, path: &str, handler: Handler<S>) -> App<S> {
        let known = self.patterns.iter().position(|pattern| pattern == path);
        let route = known.unwrap_or_else(|| {
            self.patterns.push(path.to_owned());
            self.patterns.len() - 1
        });
        // Routes beyond all measure share the name of none.
        let handled = Handled { route: u16::try_from(route).unwrap_or(0), handler };
        if let Err(mistake) = self.router.add(method.as_str(), path, handled) {
            self.mistake.get_or_insert(mistake.into());
        }
        self
    }

    /// Makes what the loop calls.
    ///
    /// # Errors
    ///
    /// A route was malformed, or there twice; a folder of files is not there.
    pub(crate) fn into_service(
        self,
        cx: impl FnOnce(S) -> Context<S>,
    ) -> Result<Box<dyn Service>, BootError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let cx = cx(self.state);
        let allowed = cx.settings().limit_request_body;
        let body_bytes_max = match (self.body_bytes_max, allowed) {
            (None, 0) => BODY_BYTES_MAX,
            (None, allowed) => allowed,
            (Some(own), 0) => own,
            (Some(own), allowed) => own.min(allowed),
        };
        Ok(Box::new(Routes { router: self.router, patterns: self.patterns, cx, body_bytes_max }))
    }
}

/// Makes an asynchronous handler from an `async fn` that takes the request as its own.
///
/// ```
/// use worker::{App, Context, OwnedRequest, Result, Response, owned};
///
/// async fn echo(request: OwnedRequest, _: Context) -> Result {
///     let body = request.into_body().bytes().await?;
///     Ok(Response::bytes("application/octet-stream", body))
/// }
///
/// let app = App::new().post_async("/echo", owned(echo));
/// # let _ = app;
/// ```
pub fn owned<S, F>(
    handler: impl Fn(OwnedRequest, Context<S>) -> F + 'static,
) -> impl Fn(&Request<'_>, &Context<S>) -> F + 'static
where
    S: 'static,
    F: Future<Output: IntoResponse> + 'static,
{
    move |request, cx| handler(request.to_owned(), cx.clone())
}

/// An application at work.
struct Routes<S> {
    router: Router<Handled<S>>,
    patterns: Vec<String>,
    cx: Context<S>,
    body_bytes_max: u64,
}

impl<S> Service for Routes<S> {
    fn admit(&self, head: &Head<'_>) -> Admission {
        let bytes_max = self.body_bytes_max;
        match self.router.find(head.method().as_str(), head.path()) {
            Match::Found { value, .. } => match value.handler {
                Handler::Plain(_) => Admission::Gather { bytes_max },
                Handler::Later(_) => Admission::Stream { bytes_max },
            },
            _ => Admission::Ignore,
        }
    }

    fn call(&self, head: &Head<'_>, via: &Via<'_>, content: Content<'_>) -> (u16, Answer) {
        let response = match self.router.find(head.method().as_str(), head.path()) {
            Match::Found { value, params } => {
                let request = Request { head, via, params, content };
                let answer = match &value.handler {
                    Handler::Plain(handler) => Answer::Now(handler(&request, &self.cx)),
                    Handler::Later(handler) => Answer::Later(handler(&request, &self.cx)),
                };
                return (value.route, answer);
            }
            Match::NotFound => Response::error(404),
            Match::MethodNotAllowed { allow } => {
                Response::error(405).header("Allow", allow.to_owned())
            }
            Match::Options { allow } => Response::status(204).header("Allow", allow.to_owned()),
        };
        (0, Answer::Now(response))
    }

    fn pattern(&self, route: u16) -> &str {
        self.patterns.get(usize::from(route)).map_or(scoreboard::ROUTE_OTHER, String::as_str)
    }
}
