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
