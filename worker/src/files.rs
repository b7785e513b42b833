//! Files as responses: one ([`Response::file`]), or those of a folder ([`App::files`](crate::App::files)).
//!
//! - Nothing outside the folder is opened: the kernel resolves the path beneath it (`openat2`). Symbolic links are followed
//!   as long as they stay inside; absolute ones and those that lead out are "not found".
//! - Names that begin with a dot are not served, `.well-known` excepted.
//! - Conditional requests and single ranges are answered as RFC 9110 §13 and §14 say; several ranges get the whole file.
//! - Opening a file may wait for the disk, which holds up the worker: folders belong on a local disk.

mod conditional;
mod dates;
mod open;
mod types;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::OFlag;

use crate::request::Request;
use crate::response::{Body, Response};
#[cfg(fuzzing)]
pub(crate) use conditional::decide;
pub(crate) use conditional::{Validators, Verdict};
#[cfg(fuzzing)]
pub(crate) use open::clean;

/// A file that is to be sent, or a part of it.
#[derive(Debug)]
pub struct FileBody {
    pub(crate) file: File,
    pub(crate) at: u64,
    pub(crate) len: u64,
    validators: Validators,
}

/// A folder of files to serve; see [`App::files`](crate::App::files). A path is one.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
    index: Option<String>,
    cache_control: Option<String>,
}

impl Files {
    /// The files of `folder` and those under it.
    #[must_use]
    pub fn of(folder: impl Into<PathBuf>) -> Files {
        Files { folder: folder.into(), index: Some("index.html".to_owned()), cache_control: None }
    }

    /// Sets what stands for a folder; `index.html` unless it is said. `None`: folders are not found.
    #[must_use]
    pub fn index(self, name: Option<&str>) -> Files {
        Files { index: name.map(str::to_owned), ..self }
    }

    /// Sets `Cache-Control`, such as `max-age=3600`.
    #[must_use]
    pub fn cache_control(self, value: impl Into<String>) -> Files {
        Files { cache_control: Some(value.into()), ..self }
    }

    /// Finds out whether there is such a folder.
    pub(crate) fn check(&self) -> io::Result<()> {
        let is_folder = std::fs::metadata(&self.folder)?.is_dir();
        if is_folder { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Answers a request for what `rest`, the end of its path, names.
    pub(crate) fn respond(&self, request: &Request<'_>, rest: &[u8]) -> Response {
        let Some((path, is_folder)) = open::clean(rest) else { return Response::error(404) };
        let path = match (&self.index, is_folder) {
            (Some(index), true) => path.join(index),
            (None, true) => return Response::error(404),
            (_, false) => path,
        };
        let opened = open::beneath(&self.folder, &path)
            .and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let (file, metadata) = match opened {
            Ok(opened) => opened,
            Err(error) if is_not_there(&error) => return Response::error(404),
            Err(error) => return Response::error(500).because(error.into()),
        };
        if metadata.is_dir() && self.index.is_some() && !is_folder {
            let query = request.query_string().map(|query| format!("?{query}")).unwrap_or_default();
            return Response::error(301).header("Location", format!("{}/{query}", request.path()));
        }
        match Response::opened(file, &metadata, types::of(&path)) {
            Ok(response) => {
                let response = match &self.cache_control {
                    Some(value) => response.header("Cache-Control", value.clone()),
                    None => response,
                };
                response.conditional(request)
            }
            Err(_) => Response::error(404),
        }
    }
}

impl<P: Into<PathBuf>> From<P> for Files {
    fn from(folder: P) -> Files {
        Files::of(folder)
    }
}

/// Whether a client is to hear that there is no such file.
fn is_not_there(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::NotFound
            | Kind::NotADirectory
            | Kind::PermissionDenied
            | Kind::InvalidFilename
            | Kind::CrossesDevices
    ) || error.raw_os_error() == Some(nix::Error::ELOOP as i32)
        || error.raw_os_error() == Some(nix::Error::ENXIO as i32)
}

/// How files become responses.
impl Response {
    /// 200 with the file at `path`, whose name says the `Content-Type`; it is sent without being read into memory.
    ///
    /// Follow it by [`Response::conditional`] to have `If-None-Match`, `Range` and the like heeded.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or is no regular file; by `?` in a handler that is 500.
    ///
    /// ```
    /// use worker::{App, Response, Result};
    ///
    /// let app = App::new().get("/report", |request, _| -> Result {
    ///     Ok(Response::file("/var/lib/app/report.pdf")?.conditional(request))
    /// });
    /// # let _ = app;
    /// ```
    pub fn file(path: impl AsRef<Path>) -> io::Result<Response> {
        let path = path.as_ref();
        // What waits when opened (a FIFO) does not here.
        let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        Response::opened(file, &metadata, types::of(path))
    }

    /// As [`Response::file`], for a file that is open. It is sent from its beginning, whatever its position.
    ///
    /// # Errors
    ///
    /// It is no regular file.
    pub fn open_file(content_type: &'static str, file: File) -> io::Result<Response> {
        let metadata = file.metadata()?;
        Response::opened(file, &metadata, content_type)
    }

    fn opened(
        file: File,
        metadata: &std::fs::Metadata,
        content_type: &'static str,
    ) -> io::Result<Response> {
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let validators = Validators::of(metadata, SystemTime::now());
        let mut response = Response::bytes(content_type, Body::Empty)
            .header("ETag", validators.etag.clone())
            .header("Accept-Ranges", "bytes");
        if let Some(modified) = validators.modified {
            response = response.header("Last-Modified", httpdate::fmt_http_date(modified));
        }
        response.body =
            Body::File(Box::new(FileBody { file, at: 0, len: metadata.len(), validators }));
        Ok(response)
    }

    /// Heeds the request's preconditions and `Range`, if this is a file with status 200: the answer may become 304, 412, 206
    /// or 416.
    pub fn conditional(mut self, request: &Request<'_>) -> Response {
        let Body::File(file) = &mut self.body else { return self };
        if self.status != 200 {
            return self;
        }
        let whole = file.len;
        match conditional::decide(
            request.method(),
            request.headers(),
            &file.validators,
            whole,
            SystemTime::now(),
        ) {
            Verdict::Whole => self,
            Verdict::Part { first, last } => {
                file.at += first;
                file.len = last - first + 1;
                self.with_status(206)
                    .header("Content-Range", format!("bytes {first}-{last}/{whole}"))
            }
            Verdict::NotModified => {
                self.body = Body::Empty;
                self.content_type = None;
                self.with_status(304)
            }
            Verdict::Failed => Response::error(412),
            Verdict::Unsatisfiable => {
                Response::error(416).header("Content-Range", format!("bytes */{whole}"))
            }
        }
    }
}
