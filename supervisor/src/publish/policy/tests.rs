use super::*;
use crate::redact::Secrets;

const OWN: &str = "our-own-canary-3f7a";

fn policy(protected: &[&str]) -> Policy {
    let redactor = Redactor::new(Secrets::new().with("github token", OWN.into()));
    let protected: Vec<String> = protected.iter().map(|text| (*text).to_owned()).collect();
    Policy::new(redactor, &protected, &[]).unwrap()
}

fn kinds(data: &str) -> Vec<String> {
    let blob = ScannedBlob { path: b"src/a.rs", data: data.as_bytes() };
    policy(&[]).check_blob(&blob).into_iter().map(|finding| finding.to_string()).collect()
}

/// Joins the parts of a token, so that secret scanners do not report this file.
fn join(parts: &[&str]) -> String {
    parts.concat()
}

#[test]
fn known_tokens_are_found_by_kind() {
    let body = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5hI7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5hI7";
    let part = |length: usize| body.get(..length).unwrap();
    let cases = [
        (join(&["ghp", "_", part(36)]), "GitHub token"),
        (join(&["gho", "_", part(36)]), "GitHub token"),
        (join(&["ghs", "_", part(36)]), "GitHub token"),
        (join(&["github", "_pat_", part(22), "_", part(59)]), "GitHub token"),
        (join(&["AKI", "A", "Q3EGRVJ7KLMN2P4Z"]), "AWS access key id"),
        (join(&["aws_secret_access_key = ", part(39), "/"]), "AWS secret access key"),
        (join(&["sk-", "ant-api03-", part(60)]), "Anthropic key"),
        (join(&["sk-", "ant-oat01-", part(60)]), "Anthropic key"),
        (join(&["sk-", "proj-", part(48)]), "OpenAI key"),
        (join(&["xox", "b-123456789012-1234567890123-", part(24)]), "Slack token"),
        (join(&["gl", "pat-", part(20)]), "GitLab token"),
        (join(&["npm", "_", part(36)]), "npm token"),
        (join(&["pypi-", "AgEIcHlwaS5vcmc", part(60)]), "PyPI token"),
        (join(&["AIz", "a", part(35)]), "Google API key"),
        (join(&["sk", "_live_", part(24)]), "Stripe live key"),
        (join(&["-----BEGIN RSA ", "PRIVATE KEY-----\n", part(64), "\n"]), "private key"),
        (join(&["-----BEGIN OPENSSH ", "PRIVATE KEY-----\\n", part(64)]), "private key"),
    ];
    for (token, kind) in cases {
        for text in [token.clone(), format!("let key = \"{token}\";\n"), format!("KEY={token}\n# end")] {
            assert_eq!(kinds(&text), [format!("{kind} in `src/a.rs`")], "{text}");
        }
    }
}

#[test]
fn token_placeholders_are_accepted() {
    for innocent in [
        "AKIAIOSFODNN7EXAMPLE",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "GITHUB_TOKEN=ghp_...",
        "sk-ant-...",
        "sk-ant-api03-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "npm_config_cache",
        "task-ant-hill",
        "xoxb-your-token-here",
        "4f5e8a1c9b7d3e2f4f5e8a1c9b7d3e2f4f5e8a1c",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    ] {
        assert_eq!(kinds(innocent), Vec::<String>::new(), "{innocent}");
    }
}

#[test]
fn own_secret_in_commit_metadata_is_found_without_leak() {
    let policy = policy(&[]);
    let own = OWN.as_bytes();
    let clean = ScannedCommit {
        oid: "0123456789abcdef0123",
        header: b"tree 0123456789abcdef",
        message: b"core: add",
        author: (b"A", b"a@b"),
        committer: (b"C", b"c@d"),
    };
    let commits = [
        (ScannedCommit { message: own, ..clean }, "the message of"),
        (ScannedCommit { author: (own, b"a@b"), ..clean }, "the author of"),
        (ScannedCommit { author: (b"A", own), ..clean }, "the author of"),
        (ScannedCommit { committer: (b"C", own), ..clean }, "the committer of"),
        (ScannedCommit { header: own, ..clean }, "the header of"),
    ];
    assert_eq!(policy.check_commit(&clean), []);
    for (commit, location) in commits {
        let findings = policy.check_commit(&commit);
        let text = policy_failure(&findings).unwrap().1;
        assert!(
            text.contains(&format!("github token of this run in {location} commit 0123456789ab")),
            "{text}"
        );
        assert!(!text.contains(OWN), "{text}");
    }
}

#[test]
fn secret_in_path_is_redacted_in_finding() {
    let token = join(&["ghp", "_", "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5"]);
    let path = format!("keys/{OWN}/{token}.txt");
    let findings = policy(&["keys/"]).check_path(path.as_bytes());
    assert_eq!(findings.len(), 3);
    for finding in &findings {
        let text = finding.to_string();
        assert!(!text.contains(OWN) && !text.contains(&token), "{text}");
    }
}

#[test]
fn protected_path_is_rejected_with_its_pattern() {
    let policy = policy(&[".github/", "!.github/README.md", "*.lock"]);
    assert_eq!(policy.check_path(b"src/main.rs"), []);
    let findings = policy.check_path(b".github/workflows/ci.yml");
    assert_eq!(
        policy_failure(&findings),
        Some((
            Reason::ProtectedPath,
            "push rejected by policy: change of `.github/workflows/ci.yml`, protected by `.github/`"
                .to_owned()
        ))
    );
}

#[test]
fn secret_outranks_protected_path() {
    let policy = policy(&["*.lock"]);
    let mut findings = policy.check_path(b"Cargo.lock");
    findings.extend(policy.check_blob(&ScannedBlob { path: b"a", data: OWN.as_bytes() }));
    assert_eq!(policy_failure(&findings).unwrap().0, Reason::SecretInCommit);
    assert_eq!(policy_failure(&[]), None);
}

#[test]
fn path_with_newline_cannot_forge_message_line() {
    let findings = policy(&["*"]).check_path(b"a\nSucceeded\x1b[2J");
    assert!(!findings[0].to_string().contains(['\n', '\x1b']));
}
