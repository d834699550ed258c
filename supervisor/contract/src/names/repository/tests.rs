use super::*;

/// Where a URL leads: transport, host, path.
type Target = (Transport, Option<&'static str>, &'static str);

fn target(text: &str) -> Option<(Transport, Option<String>, String)> {
    let url = RepositoryUrl::new(text).ok()?;
    assert_eq!(url.as_str(), text, "the text stays as given");
    Some((url.transport(), url.host(), url.path().to_owned()))
}

fn assert_targets(cases: &[(&str, Option<Target>)]) {
    let found: Vec<_> = cases.iter().map(|(text, _)| (*text, target(text))).collect();
    let owned = |(transport, host, path): Target| (transport, host.map(str::to_owned), path.to_owned());
    let expected: Vec<_> = cases.iter().map(|(text, target)| (*text, target.map(owned))).collect();
    let wrong: Vec<_> = found.iter().zip(&expected).filter(|(found, expected)| found != expected).collect();
    assert!(wrong.is_empty(), "found and expected: {wrong:#?}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn repository_url_host_resists_parser_tricks() {
    assert_targets(&[
        ("https://github.com/o/r", Some((Transport::Http, Some("github.com"), "o/r"))),
        ("https://GitHub.COM/o/r", Some((Transport::Http, Some("github.com"), "o/r"))),
        ("https://github.com:443/o/r", Some((Transport::Http, Some("github.com"), "o/r"))),
        ("https://github.com:8443/o/r.git", Some((Transport::Http, Some("github.com"), "o/r"))),
        ("https://github.com./o/r", Some((Transport::Http, Some("github.com."), "o/r"))),
        ("https://github.com", Some((Transport::Http, Some("github.com"), ""))),
        ("https://github.com/", Some((Transport::Http, Some("github.com"), ""))),
        ("https://[::1]:8080/o/r", Some((Transport::Http, Some("[::1]"), "o/r"))),
        ("https://[0:0:0:0:0:0:0:1]/o/r", Some((Transport::Http, Some("[::1]"), "o/r"))),
        ("http://127.0.0.1:80/a/b/", Some((Transport::Http, Some("127.0.0.1"), "a/b"))),
        ("https://git_server:3000/o/r", Some((Transport::Http, Some("git_server"), "o/r"))),
        ("https://github.com@evil.example/o/r", None),
        ("https://github.com:x@evil.example/o/r", None),
        ("https://@github.com/o/r", None),
        ("https://:@github.com/o/r", None),
        (
            "https://evil.example/@github.com/o/r",
            Some((Transport::Http, Some("evil.example"), "@github.com/o/r")),
        ),
        ("https://evil.example?@github.com/o/r", Some((Transport::Http, Some("evil.example"), "o/r"))),
        ("https://evil.example#@github.com/o/r", Some((Transport::Http, Some("evil.example"), "o/r"))),
        ("https://github.com%2f@evil.example/o/r", None),
        ("https://evil.example\\@github.com/o/r", None),
        ("https://github.com\\@evil.example/o/r", None),
        ("https://github.com:80\\@evil.example/o/r", None),
        ("https:\\\\github.com\\o\\r", Some((Transport::Ssh, Some("https"), "\\\\github.com\\o\\r"))),
        ("https:github.com/o/r", Some((Transport::Ssh, Some("https"), "github.com/o/r"))),
        ("https:/github.com/o/r", Some((Transport::Ssh, Some("https"), "github.com/o/r"))),
        ("https:///github.com/o/r", None),
        ("https:////github.com/o/r", None),
        ("//github.com/o/r", Some((Transport::Local, None, "github.com/o/r"))),
        ("HTTPS://github.com/o/r", None),
        ("Ssh://github.com/o/r", None),
        ("https://", None),
        ("https:///", None),
        ("https://:443/o/r", None),
        ("https://?x", None),
        ("https://#x", None),
        ("https://github.com:/o/r", Some((Transport::Http, Some("github.com"), "o/r"))),
        ("https://github.com:4 43/o/r", None),
        ("https://github.com\t/o/r", None),
        ("https://github.com\n/o/r", None),
        ("https://github.com\0/o/r", None),
        (" https://github.com/o/r", None),
        ("https://github.com/o/r ", None),
        ("https://github.com/o/../evil/r", Some((Transport::Http, Some("github.com"), "o/../evil/r"))),
        ("https://github.com/o/%2e%2e/r", Some((Transport::Http, Some("github.com"), "o/%2e%2e/r"))),
        ("https://github.com/o/r?x=y#z", Some((Transport::Http, Some("github.com"), "o/r?x=y#z"))),
        ("https://github.com/o\\r", Some((Transport::Http, Some("github.com"), "o\\r"))),
        ("ssh://git@github.com/o/r.git", Some((Transport::Ssh, Some("github.com"), "o/r"))),
        ("ssh://git@host:2222/o/r", Some((Transport::Ssh, Some("host"), "o/r"))),
        ("ssh://host:/o/r", Some((Transport::Ssh, Some("host"), "o/r"))),
        ("ssh://host", Some((Transport::Ssh, Some("host"), ""))),
        ("ssh://", None),
        ("ssh:///o/r", None),
        ("ssh://git@/o/r", None),
        ("ssh://me@corp.example@host:2022/o/r", Some((Transport::Ssh, Some("host"), "o/r"))),
        ("ssh://user:pass@host/o/r", Some((Transport::Ssh, Some("host"), "o/r"))),
        ("ssh://github.com\\@evil.example/o/r", Some((Transport::Ssh, Some("evil.example"), "o/r"))),
        ("ssh://host?x/o/r", Some((Transport::Ssh, Some("host"), "o/r"))),
        ("ssh://[::1]:22/o/r", Some((Transport::Ssh, Some("[::1]"), "o/r"))),
        ("ssh://GitHub.com/o/r", Some((Transport::Ssh, Some("GitHub.com"), "o/r"))),
        ("ssh://host/~me/r", Some((Transport::Ssh, Some("host"), "~me/r"))),
        ("git@github.com:o/r.git", Some((Transport::Ssh, Some("github.com"), "o/r"))),
        ("github.com:o/r", Some((Transport::Ssh, Some("github.com"), "o/r"))),
        ("git@GitHub.com:o/r", Some((Transport::Ssh, Some("GitHub.com"), "o/r"))),
        ("git@github.com@evil.example:o/r", Some((Transport::Ssh, Some("evil.example"), "o/r"))),
        ("git@evil.example:@github.com/o/r", Some((Transport::Ssh, Some("evil.example"), "@github.com/o/r"))),
        ("git@[::1]:o/r", None),
        ("git@[host]:o/r", Some((Transport::Ssh, Some("[host]"), "o/r"))),
        ("git@host:2222:o/r", Some((Transport::Ssh, Some("host"), "2222:o/r"))),
        ("git@host:/srv/o/r", Some((Transport::Ssh, Some("host"), "srv/o/r"))),
        ("git@host://o/r", None),
        ("git@host:", None),
        ("git@:o/r", None),
        ("@host:o/r", Some((Transport::Ssh, Some("host"), "o/r"))),
        ("-x@host:o/r", None),
        ("a@-o:x", None),
        ("a/b@host:o/r", None),
        ("git@ho\\st:o/r", Some((Transport::Ssh, Some("ho\\st"), "o/r"))),
        ("git@host::x", None),
        ("C:\\x", Some((Transport::Ssh, Some("C"), "\\x"))),
        ("ext::sh", None),
        ("file:///x", None),
        ("ftp://host/x", None),
        ("git://host/x", None),
        ("javascript:alert(1)", Some((Transport::Ssh, Some("javascript"), "alert(1)"))),
        ("data:text/plain,x", Some((Transport::Ssh, Some("data"), "text/plain,x"))),
        ("/srv/git/r.git", Some((Transport::Local, None, "srv/git/r"))),
        ("/", Some((Transport::Local, None, ""))),
        ("relative/path", None),
        ("", None),
        (".", None),
    ]);
}

#[test]
fn numeric_ipv4_url_is_accepted_without_host() {
    for text in
        ["https://0x7f.1/o/r", "https://2130706433/o/r", "https://127.1/o/r", "https://0177.0.0.1/o/r"]
    {
        assert_eq!(target(text), Some((Transport::Http, None, "o/r".to_owned())), "{text}");
    }
}

/// No client could use these: the HTTP client and ssh refuse them as well.
#[test]
fn url_with_unusable_host_or_port_is_rejected() {
    for text in [
        "https://github.com%40evil.example/o/r",
        "https://github.com\\.evil.example/o/r",
        "https://git%68ub.com/o/r",
        "https://github.com%00.evil.example/o/r",
        "https://github.com%2eevil.example/o/r",
        "https://g\u{456}thub.com/o/r",
        "https://b\u{fc}cher.example/o/r",
        "https://github\u{3002}com/o/r",
        "https://\u{ff47}ithub.com/o/r",
        "https://github.com\u{200b}/o/r",
        "https://github.com\u{ad}/o/r",
        "https://github.com:99999/o/r",
        "https://github.com:abc/o/r",
        "https://[::1/o/r",
        "https://[github.com]/o/r",
        "https://[::1]evil.example/o/r",
        "https://a<b/o/r",
        "https://a^b/o/r",
        "https://1.2.3.4.5/o/r",
        "ssh://host:abc/o/r",
        "ssh://host:99999/o/r",
        "ssh://-oProxyCommand=x/o/r",
        "ssh://git@-oProxyCommand=x/o/r",
        "ssh://-l@host/o/r",
    ] {
        let error = RepositoryUrl::new(text).unwrap_err();
        assert!(!error.problem.is_empty(), "{text:?}");
    }
}

#[test]
fn url_with_credentials_is_rejected_without_leak() {
    let error = RepositoryUrl::new("https://me:hunter2@github.com/o/r").unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn repository_url_parses_into_transport_host_path() {
    let cases = [
        ("git@github.com:myorg/trader.git", Transport::Ssh, Some("github.com"), "myorg/trader"),
        ("ssh://git@host:2222/myorg/trader.git", Transport::Ssh, Some("host"), "myorg/trader"),
        ("https://github.com/myorg/trader", Transport::Http, Some("github.com"), "myorg/trader"),
        ("http://127.0.0.1:80/a/b/", Transport::Http, Some("127.0.0.1"), "a/b"),
        ("/srv/git/trader.git", Transport::Local, None, "srv/git/trader"),
    ];
    for (text, transport, host, path) in cases {
        let url = RepositoryUrl::new(text).unwrap();
        assert_eq!((url.transport(), url.host().as_deref(), url.path()), (transport, host, path), "{text}");
    }
}

#[test]
fn url_that_runs_commands_is_rejected() {
    for bad in ["ext::sh -c x", "ext::sh", "--upload-pack=x", "-oProxyCommand=x:y", "file:///x", "a@-o:x"] {
        assert!(RepositoryUrl::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn url_that_shows_token_to_network_is_rejected() {
    for (text, accepted) in [
        ("http://127.0.0.1:8080/o/r", true),
        ("http://127.9.9.9/o/r", true),
        ("http://localhost/o/r", true),
        ("http://LOCALHOST:3000/o/r", true),
        ("http://[::1]:3000/o/r", true),
        ("http://[0:0:0:0:0:0:0:1]/o/r", true),
        ("http://github.com/o/r", false),
        ("http://github.com:443/o/r", false),
        ("http://git_server:3000/o/r", false),
        ("http://10.0.0.1/o/r", false),
        ("http://localhost./o/r", false),
        ("http://localhost.evil.com/o/r", false),
        ("http://evil.localhost/o/r", false),
        ("http://127.0.0.1.evil.com/o/r", false),
        ("http://127.0.0.1./o/r", false),
        ("http://127.1/o/r", false),
        ("http://2130706433/o/r", false),
        ("http://0x7f.1/o/r", false),
        ("http://0177.0.0.1/o/r", false),
        ("http://[::ffff:127.0.0.1]/o/r", false),
        ("http://[::]/o/r", false),
        ("http://0.0.0.0/o/r", false),
        ("http://evil.com/@localhost/o/r", false),
        ("http://evil.com?@localhost/o/r", false),
        ("http://evil.com#@localhost/o/r", false),
        ("http://localhost@evil.com/o/r", false),
        ("http://evil.com\\@localhost/o/r", false),
        ("git://localhost/o/r", false),
        ("git://github.com/o/r", false),
        ("git+ssh://github.com/o/r", false),
        ("ftps://github.com/o/r", false),
    ] {
        assert_eq!(RepositoryUrl::new(text).is_ok(), accepted, "{text}");
    }
    let error = RepositoryUrl::new("http://github.com/o/r").unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid repository URL `http://github.com/o/r`: http is not encrypted: use https or ssh"
    );
}

#[test]
fn spellings_of_one_repository_are_recognized() {
    let same: [&[&str]; 6] = [
        &[
            "https://github.com/Acme/Trader",
            "https://github.com/acme/trader.git",
            "https://github.com/acme/trader/",
            "https://github.com/acme/trader.git/",
            "https://GitHub.COM:443/acme/trader",
            "https://github.com:/acme/trader",
            "git@github.com:acme/trader.git",
            "git@GitHub.com:Acme/trader",
            "github.com:acme/trader",
            "ssh://git@github.com/acme/trader.git",
            "ssh://git@github.com:22/acme/trader",
        ],
        &[
            "https://git.example.com/o/r",
            "https://GIT.example.com:443/o/r.git",
            "https://git.example.com/o/r/",
        ],
        &[
            "git@git.example.com:o/r",
            "git@GIT.example.com:o/r.git",
            "ssh://git@git.example.com/o/r",
            "ssh://git@git.example.com:22/o/r.git/",
            "ssh://git@git.example.com:/o/r",
        ],
        &["http://127.0.0.1:80/o/r", "http://127.0.0.1/o/r.git"],
        &["https://[::1]/o/r", "https://[0:0:0:0:0:0:0:1]:443/o/r"],
        &["/srv/git/r.git", "/srv/git/r.git/", "/srv/git/r.git//"],
    ];
    for (row, spellings) in same.iter().enumerate() {
        for one in *spellings {
            for (other_row, others) in same.iter().enumerate() {
                for other in *others {
                    let (one, other) =
                        (RepositoryUrl::new(*one).unwrap(), RepositoryUrl::new(*other).unwrap());
                    assert_eq!(one.is_same_repository(&other), row == other_row, "{one} {other}");
                }
            }
        }
    }
}

#[test]
fn similar_repositories_are_distinguished() {
    for (one, other) in [
        ("https://github.com/acme/trader", "https://github.com/acme/trader2"),
        ("https://github.com/acme/trader", "https://github.com/evil/trader"),
        ("https://github.com/acme/trader", "https://github.com.evil.com/acme/trader"),
        ("https://github.com/acme/trader", "https://github.com./acme/trader"),
        ("https://github.com/acme/trader", "https://github.com:8443/acme/trader"),
        ("https://github.com/acme/trader", "ssh://git@github.com:2222/acme/trader"),
        ("https://github.com/acme/trader", "https://github.com/acme/trader?x"),
        ("https://github.com/acme/trader", "https://github.com/acme/../acme/trader"),
        ("https://github.com/acme/trader", "https://github.com/acme/%74rader"),
        ("https://github.com/acme/trader", "https://github.com//acme//trader"),
        ("https://github.com/acme/trader", "https://github.com/acme/trader.git.git"),
        ("https://github.com/acme/trader", "git@gitlab.com:acme/trader"),
        ("https://github.com/acme/trader", "/acme/trader"),
        ("https://git.example.com/o/r", "https://git.example.com/O/r"),
        ("https://git.example.com/o/r", "git@git.example.com:o/r"),
        ("https://git.example.com/o/r", "https://git.example.com:444/o/r"),
        ("git@git.example.com:o/r", "me@git.example.com:o/r"),
        ("git@git.example.com:o/r", "git.example.com:o/r"),
        ("git@git.example.com:o/r", "ssh://git@git.example.com:2222/o/r"),
        ("http://127.0.0.1/o/r", "https://127.0.0.1/o/r"),
        ("http://127.0.0.1/o/r", "http://127.0.0.1:8080/o/r"),
        ("http://127.0.0.1/o/r", "http://127.0.0.2/o/r"),
        ("http://127.0.0.1/o/r", "http://localhost/o/r"),
        ("https://127.1/o/r", "https://127.0.0.1/o/r"),
        ("/srv/git/r", "/srv/git/r.git"),
        ("/srv/git/r", "/srv/git/R"),
        ("/srv/git/r", "/srv/git/./r"),
        ("/srv/git/r", "//srv/git/r"),
    ] {
        let (left, right) = (RepositoryUrl::new(one).unwrap(), RepositoryUrl::new(other).unwrap());
        assert!(!left.is_same_repository(&right) && !right.is_same_repository(&left), "{one} {other}");
        assert!(left.is_same_repository(&left) && right.is_same_repository(&right), "{one} {other}");
    }
}
