use super::*;

#[test]
fn http_url_with_ambiguous_host_is_rejected() {
    for (text, host) in [
        ("https://github.com/o/r", Some("github.com")),
        ("HTTPS://GitHub.COM:443/o/r?x#y", Some("github.com")),
        ("http://git_server:3000", Some("git_server")),
        ("https://github.com./o", Some("github.com.")),
        ("http://[::1]:80/", Some("[::1]")),
        ("http://[0:0:0:0:0:0:0:1]/", Some("[::1]")),
        ("https://evil.example/@github.com", Some("evil.example")),
        ("https://evil.example?@github.com", Some("evil.example")),
        ("https://evil.example#@github.com", Some("evil.example")),
        ("https://github.com@evil.example/", None),
        ("https://github.com:443@evil.example/", None),
        ("https://@github.com/", None),
        ("https://evil.example\\@github.com/", None),
        ("https://github.com\\@evil.example/", None),
        ("https://github.com:80\\@evil.example/", None),
        ("https://github.com\\.evil.example/", None),
        ("https:\\\\github.com/", None),
        ("https:github.com", None),
        ("https:/github.com", None),
        ("https:///github.com/", None),
        ("//github.com/", None),
        ("ftp://github.com/", None),
        ("ssh://github.com/", None),
        ("https://git%68ub.com/", None),
        ("https://github.com%00.evil.example/", None),
        ("https://github.com%40evil.example/", None),
        ("https://g\u{456}thub.com/", None),
        ("https://github\u{3002}com/", None),
        ("https://\u{ff47}ithub.com/", None),
        ("https://github.com\u{ad}/", None),
        ("https://127.1/", None),
        ("https://0x7f000001/", None),
        ("https://0177.0.0.1/", None),
        ("https://", None),
        ("https://:443/", None),
        ("https://github.com:99999/", None),
        ("https://github.com:a/", None),
        ("https://[::1/", None),
        ("https://[::1]evil.example/", None),
        ("https://[github.com]/", None),
        ("https://git\thub.com/", None),
        ("https://github.com/\n", None),
        (" https://github.com/", None),
        ("https://github.com\0/", None),
    ] {
        let parsed = parse(text);
        assert_eq!(parsed.as_ref().and_then(Url::host_str), host, "{text:?}");
    }
}

#[test]
fn host_with_path_or_user_is_rejected() {
    for (text, host) in [
        ("github.com", Some("github.com")),
        (" Git.Example.com:8443 ", Some("git.example.com")),
        ("[::1]:80", Some("[::1]")),
        ("127.0.0.1:8080", Some("127.0.0.1")),
        ("", None),
        ("https://github.com", None),
        ("github.com/", None),
        ("me@github.com", None),
        ("github.com\\", None),
        ("*", Some("*")),
    ] {
        assert_eq!(parse_host(text).as_deref(), host, "{text:?}");
    }
}

#[test]
fn user_info_is_split_off_url() {
    for (text, user_info, rest) in [
        ("https://me:secret@Host/x?y", "me:secret", "https://Host/x?y"),
        ("https://me@x@host", "me@x", "https://host"),
        ("https://@host/@x", "", "https://host/@x"),
    ] {
        assert_eq!(split_user_info(text), Some((user_info, rest.to_owned())), "{text}");
    }
    for text in ["https://host/a@b", "https://host?a@b", "git@host:o/r", "/a@b", ""] {
        assert_eq!(split_user_info(text), None, "{text}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn url_that_shows_credential_to_network_is_rejected() {
    for (text, accepted) in [
        ("https://github.com/o/r", true),
        ("HTTPS://GitHub.com/o/r", true),
        ("https://10.0.0.1:8443/", true),
        ("https://localhost.evil.com/", true),
        ("http://127.0.0.1/", true),
        ("http://127.0.0.1:8080/mcp", true),
        ("http://127.255.255.254/", true),
        ("http://localhost", true),
        ("HTTP://LocalHost:8750/mcp", true),
        ("http://[::1]/", true),
        ("http://[0:0:0:0:0:0:0:1]:80/", true),
        ("http://[0000::0001]/", true),
        ("http://github.com/o/r", false),
        ("HTTP://github.com/o/r", false),
        ("http://github.com:443/o/r", false),
        ("http://localhost.evil.com/", false),
        ("http://evil.localhost/", false),
        ("http://localhost./", false),
        ("http://127.0.0.1./", false),
        ("http://localhost.localdomain/", false),
        ("http://localhostx/", false),
        ("http://xlocalhost/", false),
        ("http://127.0.0.1.evil.com/", false),
        ("http://127.0.0.1.nip.io/", false),
        ("http://127-0-0-1/", false),
        ("http://127.1/", false),
        ("http://127.0.1/", false),
        ("http://0x7f000001/", false),
        ("http://0x7f.0.0.1/", false),
        ("http://2130706433/", false),
        ("http://0177.0.0.1/", false),
        ("http://127.0.0.01/", false),
        ("http://127.0.0.256/", false),
        ("http://0.0.0.0/", false),
        ("http://0/", false),
        ("http://128.0.0.1/", false),
        ("http://126.255.255.255/", false),
        ("http://10.0.0.1/", false),
        ("http://192.168.1.1/", false),
        ("http://169.254.169.254/", false),
        ("http://[::]/", false),
        ("http://[::2]/", false),
        ("http://[::ffff:127.0.0.1]/", false),
        ("http://[::ffff:7f00:1]/", false),
        ("http://[::127.0.0.1]/", false),
        ("http://[fe80::1]/", false),
        ("http://[::1%25lo]/", false),
        ("http://[::1]evil.com/", false),
        ("http://::1/", false),
        ("http://localhost@evil.com/", false),
        ("http://127.0.0.1@evil.com/", false),
        ("http://127.0.0.1:80@evil.com/", false),
        ("http://evil.com@127.0.0.1/", false),
        ("http://@localhost/", false),
        ("http://localhost\\@evil.com/", false),
        ("http://evil.com\\@localhost/", false),
        ("http://evil.com#@localhost/", false),
        ("http://evil.com?@localhost/", false),
        ("http://evil.com/@localhost/", false),
        ("http://l\u{43e}calhost/", false),
        ("http://\u{ff4c}ocalhost/", false),
        ("http://\u{2460}27.0.0.1/", false),
        ("http://local%68ost/", false),
        ("http://127%2e0.0.1/", false),
        ("http://localhost%00.evil.com/", false),
        ("http://local\thost/", false),
        ("http://localhost\n.evil.com/", false),
        (" http://localhost/", false),
        ("http:localhost/", false),
        ("http:/localhost/", false),
        ("http:///localhost/", false),
        ("//localhost/", false),
        ("localhost:8750", false),
        ("ws://localhost/", false),
        ("git://localhost/o/r", false),
        ("ftp://localhost/", false),
        ("http://", false),
        ("", false),
    ] {
        assert_eq!(parse_secure(text).is_some(), accepted, "{text:?}");
    }
}
