//! Connections with TLS: who is trusted, what is refused and in which words, and that everything works inside.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Cluster, Loop, PASSWORD, chain};
use futures_util::SinkExt;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use pg::{Config, Database};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use testkit::{Authority, Identity, TempDir};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// The request for TLS, and that to cancel.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Whoever uses TLS may come in.
const TLS_ONLY: &str = "hostssl all all all trust\n";

/// A server with a certificate for `localhost`, and who signed that.
struct Fixture {
    cluster: Cluster,
    authority: Authority,
    /// Files with the certificate of that authority, and of one that signed nothing.
    trusted: String,
    other: String,
}

impl Fixture {
    fn new(rules: &str) -> Fixture {
        let authority = Authority::new("tests");
        let identity = authority.issue("server", &["localhost"]);
        let cluster = Cluster::with_tls(rules, &identity, &authority);
        let trusted = cluster.write("ca.pem", &authority.certificate());
        let other = cluster.write("other.pem", &Authority::new("others").certificate());
        Fixture { cluster, authority, trusted, other }
    }

    fn url(&self, host: &str, parameters: &str) -> String {
        format!("postgresql://postgres@{host}:{}/postgres?{parameters}", self.cluster.port())
    }

    /// For `localhost`, but whatever that resolves to.
    fn verified(&self) -> String {
        let (port, trusted) = (self.cluster.port(), &self.trusted);
        format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=verify-full \
             sslrootcert={trusted}"
        )
    }
}

/// What is told of the first attempt to connect.
#[track_caller]
fn attempt(url: &str) -> String {
    let mut config = Config::parse(url).unwrap();
    config.connect_timeout = Duration::from_secs(10);
    attempt_with(config)
}

#[track_caller]
fn attempt_with(config: Config) -> String {
    let (begun, limit) = (Instant::now(), config.connect_timeout);
    let mut looped = Loop::with(config);
    looped.until(Database::is_settled);
    let told = looped.told.lines();
    assert_eq!(told.len(), 1, "{told:?}");
    // Woken by what arrived, not by the deadline.
    assert!(begun.elapsed() < limit || told[0].contains("no session within"), "{told:?}");
    told[0].clone()
}

#[track_caller]
fn check(url: &str, want: &str) {
    let told = attempt(url);
    if want == "connected" {
        assert_eq!(told, want, "{url}");
    } else {
        assert!(told.contains(want), "{url}: {told}");
    }
}

#[test]
fn the_servers_certificate_is_looked_at_as_sslmode_says() {
    let fixture = Fixture::new(TLS_ONLY);
    let Fixture { cluster, trusted, other, .. } = &fixture;
    let wrong = "127.0.0.1 but for DnsName(\"localhost\")";
    for (host, parameters, want) in [
        ("127.0.0.1", "sslmode=require".to_owned(), "connected with TLS 1.3"),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={trusted}"), "connected with TLS 1.3"),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={other}"), "unknown issuer"),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={trusted}"), "connected with TLS 1.3"),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={other}"), "unknown issuer"),
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={trusted}"),
            "connected with TLS 1.3",
        ),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}"), "unknown issuer"),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={trusted}"), wrong),
        // A test's authority is not among the system's, if that has any.
        ("localhost", "sslmode=verify-full".to_owned(), "trust"),
        ("localhost", "sslrootcert=system".to_owned(), "trust"),
        ("127.0.0.1", "sslmode=allow".to_owned(), "connected with TLS 1.3"),
        ("127.0.0.1", "sslmode=prefer".to_owned(), "connected with TLS 1.3"),
        ("127.0.0.1", "sslmode=disable".to_owned(), "no encryption (28000)"),
        ("127.0.0.1", String::new(), "no encryption (28000)"),
        (
            "127.0.0.1",
            "sslmode=require&sslrootcert=/nonexistent".to_owned(),
            "cannot use sslrootcert /nonexistent: No such file",
        ),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={trusted}.log"), "No such file"),
    ] {
        check(&fixture.url(host, &parameters), want);
    }
    check(&fixture.verified(), "connected with TLS 1.3");
    // The line names the host as it was written, and where it was found.
    let told = attempt(&fixture.verified().replace("host=localhost", "host=db.example"));
    let address = format!("db.example (127.0.0.1:{})", cluster.port());
    assert!(told.contains(&address) && told.contains("not for db.example but for"), "{told}");
    let broken = cluster.write("broken.pem", "nothing of use");
    check(
        &fixture.url("127.0.0.1", &format!("sslmode=require&sslrootcert={broken}")),
        "holds no certificate",
    );
    // Over the unix socket the mode means nothing, and nothing was asked of the rules above.
    check(&(cluster.unix() + " sslmode=verify-full"), "no pg_hba.conf entry for host \"[local]\"");
}

#[test]
fn a_certificate_that_expired_is_refused_until_it_is_renewed() {
    let fixture = Fixture::new(TLS_ONLY);
    fixture.cluster.install(&fixture.authority.issue_expired("server", &["localhost"]));
    fixture.cluster.stop(Signal::SIGINT);
    fixture.cluster.start();
    let mut looped = Loop::new(&fixture.verified());
    looped.until(Database::is_settled);
    let begun = Instant::now();
    looped.until(|_| begun.elapsed() > MS(500));
    let told = looped.told.lines();
    assert_eq!(told.len(), 1, "said once, however often it is tried: {told:?}");
    assert!(told[0].ends_with("the server's certificate has expired"), "{told:?}");
    let error = looped.run(looped.db.clone().query(&looped.db.statement("SELECT 1"), &[])).err();
    assert!(error.unwrap().is_unavailable());

    // Another authority signs the next one: the file of the trusted is read again by itself.
    let next = Authority::new("next");
    fixture.cluster.install(&next.issue("server", &["localhost"]));
    fixture.cluster.write("ca.pem", &next.certificate());
    fixture.cluster.signal(Signal::SIGHUP);
    looped.until(Database::is_up);
}

#[test]
fn a_certificate_that_signed_itself_is_trusted_where_it_is_listed() {
    let fixture = Fixture::new(TLS_ONLY);
    let itself = Identity::self_signed("server", &["localhost"]);
    fixture.cluster.install(&itself);
    fixture.cluster.stop(Signal::SIGINT);
    fixture.cluster.start();
    check(&fixture.verified(), "trusted only if sslrootcert itself holds it");
    fixture.cluster.write("ca.pem", &itself.certificate);
    check(&fixture.verified(), "connected with TLS 1.3");
    check(&fixture.verified().replace("host=localhost", "host=other"), "not for other but for");
}

/// As the commands in older manuals make it.
#[test]
fn a_certificate_of_an_old_version_serves_where_it_is_not_looked_at() {
    let Some(openssl) = testkit::find_program("openssl") else { return };
    let files = TempDir::new();
    let run = |command: &str| {
        let mut openssl = std::process::Command::new(&openssl);
        let output = openssl.args(command.split(' ')).current_dir(files.path()).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run("req -new -x509 -nodes -subj /CN=ca -out ca.crt -keyout ca.key -days 30");
    run("req -new -nodes -subj /CN=localhost -out own.csr -keyout own.key");
    run("x509 -req -in own.csr -out own.crt -CA ca.crt -CAkey ca.key -CAcreateserial -days 30");
    let read = |name: &str| std::fs::read_to_string(files.join(name)).unwrap();
    let identity = Identity { certificate: read("own.crt"), key: read("own.key") };
    let cluster = Cluster::with_tls(TLS_ONLY, &identity, &Authority::new("tests"));
    let url = |parameters: &str| format!("{}?{parameters}", cluster.tcp());
    check(&url("sslmode=require"), "connected with TLS 1.3");
    let trusted = cluster.write("ca.pem", &read("ca.crt"));
    let verified = url(&format!("sslmode=verify-ca&sslrootcert={trusted}"));
    if run("x509 -in own.crt -noout -text").contains("Version: 1 ") {
        check(&verified, "the server's certificate is of an old version of X.509");
    } else {
        check(&verified, "connected with TLS 1.3");
    }
}

#[test]
fn a_server_without_tls_is_refused_or_used_without() {
    let cluster = Cluster::shared();
    let url = |mode: &str| format!("{}?sslmode={mode}", cluster.tcp());
    check(&url("require"), "the server does not offer TLS");
    check(&(url("verify-full") + "&sslrootcert=/nonexistent"), "the server does not offer TLS");
    for mode in ["disable", "allow", "prefer"] {
        check(&url(mode), "connected");
    }
    check(&(cluster.unix() + " sslmode=require"), "connected");
}

#[test]
fn prefer_and_allow_take_the_other_way_where_the_server_refuses_the_first() {
    let fixture = Fixture::new("hostnossl all all all trust\n");
    check(&fixture.url("127.0.0.1", "sslmode=prefer"), "connected");
    check(&fixture.url("127.0.0.1", "sslmode=allow"), "connected");
    check(&fixture.url("127.0.0.1", "sslmode=require"), "SSL encryption (28000)");
    // A certificate that is not trusted is a reason to do without, as with libpq.
    let parameters = format!("sslmode=prefer&sslrootcert={}", fixture.other);
    check(&fixture.url("127.0.0.1", &parameters), "connected");

    let fixture = Fixture::new("hostnossl all all all reject\nhostssl all all all scram-sha-256\n");
    let told = attempt(
        &fixture.url("127.0.0.1", "sslmode=prefer").replace("postgres@", "postgres:wrong@"),
    );
    // The password is not shown to whoever is there without TLS.
    assert!(told.contains("28P01") && told.matches("cannot connect").count() == 1, "{told}");
    let told =
        attempt(&fixture.url("127.0.0.1", "sslmode=allow").replace("postgres@", "postgres:wrong@"));
    assert!(
        told.contains("28000") && told.contains("28P01"),
        "both ways with their reasons: {told}"
    );
}

#[test]
fn a_server_that_wants_a_certificate_gets_ours() {
    let fixture = Fixture::new("hostssl all all all cert\n");
    let cluster = &fixture.cluster;
    let url = |who: Identity, name: &str| {
        let certificate = cluster.write(&format!("{name}.crt"), &who.certificate);
        let key = cluster.write(&format!("{name}.key"), &who.key);
        fixture.url("127.0.0.1", &format!("sslmode=require&sslcert={certificate}&sslkey={key}"))
    };
    check(
        &fixture.url("127.0.0.1", "sslmode=require"),
        "connection requires a valid client certificate",
    );
    let good = url(fixture.authority.issue("postgres", &[]), "good");
    check(&good, "connected with TLS 1.3");
    check(
        &url(fixture.authority.issue("somebody", &[]), "somebody"),
        "certificate authentication failed",
    );
    let stranger = Authority::new("strangers").issue("postgres", &[]);
    check(
        &url(stranger, "stranger"),
        "the server does not accept the certificate of sslcert (UnknownCA)",
    );
    let old = fixture.authority.issue_expired("postgres", &[]);
    check(
        &url(old, "old"),
        "the server does not accept the certificate of sslcert (CertificateExpired)",
    );
    check(&good.replace("good.key", "old.key"), "cannot use sslcert");
    check(&good.replace("good.key", "good.crt"), "holds no key in PEM format");
}

#[test]
fn a_login_is_bound_to_the_servers_certificate() {
    let fixture = Fixture::new("host all all all scram-sha-256\n");
    let password = PASSWORD.replace(' ', "%20");
    let url = |parameters: &str| {
        fixture.url("127.0.0.1", parameters).replace("postgres@", &format!("postgres:{password}@"))
    };
    check(&url("sslmode=require&channel_binding=require"), "connected with TLS 1.3");
    check(&url("sslmode=require&channel_binding=disable"), "connected with TLS 1.3");
    check(&url("channel_binding=require"), "server did not use channel binding");
    check(&url(""), "connected");
}

#[test]
fn results_parameters_and_pipelines_of_any_size_come_through() {
    let fixture = Fixture::new(TLS_ONLY);
    let mut looped = Loop::up(&fixture.verified());
    let db = looped.db.clone();
    let same = db.statement("SELECT $1::int4");
    let numbers = (0..3000_i32).map(|number| {
        let (db, same) = (&db, &same);
        async move { db.query_one(same, &[&number]).await.unwrap().int4(0).unwrap() }
    });
    assert_eq!(looped.run(join_all(numbers)), (0..3000).collect::<Vec<_>>());

    let many = db.statement("SELECT i, repeat('x', i % 100) FROM generate_series(1, $1::int4) i");
    let rows = looped.run(db.query(&many, &[&200_000_i32])).unwrap();
    assert_eq!(rows.len(), 200_000);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row.get::<i32>(0).unwrap() as usize, index + 1);
        assert_eq!(row.str(1).unwrap().len(), (index + 1) % 100);
    }

    // More than any buffer on the way, in both directions at a time.
    let echo = db.statement("SELECT $1::bytea");
    let large: Vec<Vec<u8>> = (0..4_u8)
        .map(|seed| (0..8_000_000_usize).map(|at| (at % 251) as u8 ^ seed).collect())
        .collect();
    let answers = looped.run(join_all(large.iter().map(|bytes| async {
        db.query_one(&echo, &[bytes]).await.unwrap().get::<Vec<u8>>(0).unwrap()
    })));
    assert!(answers == large);

    // Types that are looked up, and a connection of one's own.
    looped.run(async {
        let mood = "SELECT 'a'::pg_temp.mood";
        let own = db.transaction().await.unwrap();
        own.batch_execute("CREATE TEMP TABLE kept (n int)").await.unwrap();
        let sink = own.copy_in("COPY kept FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        for number in 0..1000 {
            sink.send(bytes::Bytes::from(format!("{number}\n"))).await.unwrap();
        }
        sink.close().await.unwrap();
        let sum = own.query_one("SELECT sum(n) FROM kept", &[]).await.unwrap().get::<_, i64>(0);
        assert_eq!(sum, 499_500);
        own.commit().await.unwrap();
        assert!(db.query(&db.statement(mood), &[]).await.is_err());
        let domain = db.statement("SELECT 'x'::information_schema.sql_identifier");
        assert_eq!(db.query(&domain, &[]).await.unwrap().len(), 1);
    });
    assert_eq!(looped.told.lines(), ["connected with TLS 1.3"]);
}

#[test]
fn recovers_from_a_restart_in_the_midst_of_work() {
    let fixture = Fixture::new(TLS_ONLY);
    let mut looped = Loop::up(&fixture.verified());
    let db = looped.db.clone();
    let slow = db.statement("SELECT pg_sleep(5)");
    let same = db.statement("SELECT $1::int4");
    for (signal, code) in [(Signal::SIGINT, Some("57P01")), (Signal::SIGKILL, None)] {
        looped.run(db.prepare(&slow)).unwrap();
        let errors = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(MS(100));
                fixture.cluster.stop(signal);
            });
            looped.run(join_all((0..20).map(|_| db.query(&slow, &[]))))
        });
        let first = errors.into_iter().map(|answer| answer.err().unwrap()).next().unwrap();
        assert!(first.is_unavailable(), "{}", chain(&first));
        if code.is_some() {
            assert_eq!(first.as_sql().map(pg::SqlError::code), code, "{}", chain(&first));
        }
        looped.until(|db| !db.is_up());
        fixture.cluster.start();
        let begun = Instant::now();
        looped.until(Database::is_up);
        assert!(begun.elapsed() < MS(1500), "{:?}", begun.elapsed());
        let number = looped.run(async { db.query_one(&same, &[&5_i32]).await.unwrap().int4(0) });
        assert_eq!(number.unwrap(), 5);
    }
    assert_eq!(looped.told.lines().last().unwrap(), "connected with TLS 1.3");
}

/// Passes bytes on to a server, and notes how each connection begins.
struct Watcher {
    port: u16,
    began: Arc<Mutex<Vec<[u8; 8]>>>,
}

impl Watcher {
    fn new(server: u16) -> Watcher {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let began = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&began);
        thread::spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                let noted = Arc::clone(&noted);
                thread::spawn(move || {
                    let mut first = [0; 8];
                    client.read_exact(&mut first)?;
                    noted.lock().unwrap().push(first);
                    let mut server = TcpStream::connect(("127.0.0.1", server))?;
                    server.write_all(&first)?;
                    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        to.shutdown(std::net::Shutdown::Write)
                    });
                    std::io::copy(&mut server, &mut client)?;
                    client.shutdown(std::net::Shutdown::Write)
                });
            }
        });
        Watcher { port, began }
    }
}

#[test]
fn a_slow_query_is_cancelled_and_nothing_is_ever_said_in_the_clear() {
    let fixture = Fixture::new(TLS_ONLY);
    let watcher = Watcher::new(fixture.cluster.port());
    let url = fixture.verified();
    let mut config =
        Config::parse(&url.replace(
            &format!("port={}", fixture.cluster.port()),
            &format!("port={}", watcher.port),
        ))
        .unwrap();
    config.query_timeout = MS(400);
    let mut looped = Loop::with(config);
    looped.until(Database::is_up);
    let db = looped.db.clone();
    let slow = db.statement("SELECT pg_sleep(20)");
    looped.run(db.prepare(&slow)).unwrap();
    let error = looped.run(db.query(&slow, &[])).err().unwrap();
    assert!(error.is_timed_out(), "{}", chain(&error));
    let begun = Instant::now();
    let cancelled = || fixture.cluster.log().contains("canceling statement due to user request");
    looped.until(|_| cancelled() || begun.elapsed() > Duration::from_secs(10));
    assert!(cancelled(), "{}", fixture.cluster.log());
    looped.until(Database::is_up);
    // A transaction's too.
    let own = looped.run(db.dedicated()).unwrap();
    let asked = looped.run(own.query("SELECT pg_sleep(20)", &[]));
    assert!(asked.is_err());
    let count = || fixture.cluster.log().matches("canceling statement due to user request").count();
    looped.until(|_| count() >= 2 || begun.elapsed() > Duration::from_secs(20));
    assert_eq!(count(), 2, "{}", fixture.cluster.log());
    let began = watcher.began.lock().unwrap().clone();
    // The first session and its cancel, the next, the transaction's and its cancel.
    assert!(began.len() >= 5 && began.iter().all(|first| *first == SSL_REQUEST), "{began:?}");
}

/// Answers the request for TLS with `answer`, and whatever comes then with nothing.
fn answering(answer: &'static [u8], stays: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut first = [0; 8];
            let _ = client.read_exact(&mut first).and_then(|()| client.write_all(answer));
            while stays && client.read(&mut first).is_ok_and(|count| count > 0) {}
        }
    });
    format!("postgresql://u@127.0.0.1:{port}/d?sslmode=require")
}

#[test]
fn nonsense_in_the_handshake_is_a_failure_to_connect_and_takes_no_longer_than_it_may() {
    for (answer, stays, want) in [
        (&b"S"[..], true, "no session within 500ms"),
        (b"", true, "no session within 500ms"),
        (b"S\x16\x03\x03\x40\x00", true, "no session within 500ms"),
        (b"S", false, "lost in the TLS handshake"),
        (b"", false, "closed the connection when asked for TLS"),
        (b"SHTTP/1.1 400 Bad Request\r\n\r\n", true, "the server does not speak TLS"),
        (b"S\0\0\0\0\0\0\0\0\0\0\0\0", true, "the server does not speak TLS"),
        (
            b"S\x15\x03\x03\0\x02\x02\x28",
            true,
            "the server ended the TLS handshake (HandshakeFailure)",
        ),
        (b"S\x17\x03\x03\0\x05\0\0\0\0\0", true, "the server does not speak TLS"),
        (b"E\0\0\0\x0fSFATAL\0Mno\0\0", true, "answered with an error when asked for TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", true, "not PostgreSQL"),
    ] {
        let mut config = Config::parse(&answering(answer, stays)).unwrap();
        config.connect_timeout = MS(500);
        let begun = Instant::now();
        let told = attempt_with(config);
        assert!(told.contains(want), "{}: {told}", String::from_utf8_lossy(answer));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}

/// Plays a server that speaks TLS at once, with or without knowing what for, and logs anybody in.
fn direct(protocols: Vec<Vec<u8>>) -> u16 {
    let identity = Authority::new("tests").issue("server", &["localhost"]);
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = protocols;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let play = || {
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut client = rustls::StreamOwned::new(session, client);
                let mut buffer = [0; 4096];
                let _ = client.read(&mut buffer)?;
                let hello = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";
                // A record for every byte.
                for byte in hello {
                    client.write_all(&[*byte])?;
                    client.flush()?;
                }
                while client.read(&mut buffer)? > 0 {}
                Ok::<_, std::io::Error>(())
            };
            let _ = play();
        }
    });
    port
}

#[test]
fn tls_may_begin_without_being_asked_for() {
    let url = |port: u16| {
        format!("postgresql://u@127.0.0.1:{port}/d?sslmode=require&sslnegotiation=direct")
    };
    check(&url(direct(vec![b"postgresql".to_vec()])), "connected with TLS 1.2");
    check(&url(direct(Vec::new())), "the server does not know sslnegotiation=direct");
    check(&url(direct(vec![b"http/1.1".to_vec()])), "(NoApplicationProtocol)");
    // One that waits to be asked.
    let fixture = Fixture::new(TLS_ONLY);
    if fixture.cluster.log().contains("starting PostgreSQL 15") {
        check(&url(fixture.cluster.port()), "in the TLS handshake");
    }
}
