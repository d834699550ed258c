use super::*;

struct Folders {
    root: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["repo/deep", "user"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        Self { root }
    }

    fn write(&self, folder: &str, text: &str) -> PathBuf {
        let path = self.root.path().join(folder).join(NAME);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn read(&self) -> Result<Layers, Error> {
        let user = self.root.path().join("user");
        read_found(&self.root.path().join("repo/deep"), Some(&user), Some(Path::new("/home/me")), None)
    }
}

#[test]
fn address_without_server_is_completed_from_any_file() {
    let folders = Folders::new();
    folders.write(
        "repo",
        "[defaults]\nplatform_repository_url = \"o/platform\"\n[services.trader]\nrepository_url = \"gh:o/x\"\n\
         [services.auth]\nrepository_url = \"https://github.com/o/auth\"\n",
    );
    let urls = || {
        let FileSettings { defaults, services, .. } = folders.read().unwrap().settings;
        let of_services = services.into_values().filter_map(|service| service.repository_url);
        defaults.platform_repository_url.into_iter().chain(of_services).map(String::from).collect::<Vec<_>>()
    };
    let github = "https://github.com/o";
    assert_eq!(urls(), [format!("{github}/platform"), format!("{github}/auth"), format!("{github}/x")]);
    let user = folders.write("user", "github_api_url = \"https://ghe.example.com/api/v3\"\n");
    let own = "https://ghe.example.com/o";
    assert_eq!(urls(), [format!("{own}/platform"), format!("{github}/auth"), format!("{own}/x")]);
    std::fs::write(&user, "[services.trader]\nrepository_url = \"o/y\"\n").unwrap();
    let named = read_named(&user, None, Some("https://api.acme.ghe.com")).unwrap().settings;
    let url = named.services.into_values().next().unwrap().repository_url.unwrap();
    assert_eq!(url.as_str(), "https://acme.ghe.com/o/y", "the environment wins");
}

#[test]
fn user_config_overrides_nearest_project_file() {
    let folders = Folders::new();
    let far = folders.write("", "[defaults]\nmodel = \"far\"\n");
    assert_eq!(folders.read().unwrap().files, [far]);
    let near = folders.write(
        "repo",
        "[defaults]\nmodel = \"opus\"\nbranch = \"dev\"\n[services.trader]\nsetup = [\"a\", \"b\"]\n",
    );
    let user = folders.write(
        "user",
        "state_dir = \"state\"\n[defaults]\nmodel = \"haiku\"\n[services.trader]\ndepth = 5\n",
    );
    let layers = folders.read().unwrap();
    assert_eq!(layers.files, [near, user]);
    let FileSettings { defaults, services, state_dir, .. } = layers.settings;
    assert_eq!(defaults.model.as_deref(), Some("haiku"));
    assert_eq!(defaults.branch.unwrap().as_str(), "dev");
    let trader = services.into_values().next().unwrap();
    assert_eq!((trader.depth, trader.setup), (Some(5), Some(vec!["a".to_owned(), "b".to_owned()])));
    assert_eq!(state_dir.unwrap(), folders.root.path().join("user/state"));
}

#[test]
fn project_config_with_programs_or_secrets_is_rejected() {
    let cases = [
        ("[defaults]\nprotected_paths_allow = [\"x\"]\n", "defaults.protected_paths_allow", "2:1"),
        ("claude = \"./x\"\n", "claude", "1:1"),
        ("supervisor = \"./x\"\n", "supervisor", "1:1"),
        ("mcp_config_dir = \"x\"\n", "mcp_config_dir", "1:1"),
        ("\n  state_dir = \"x\"\n", "state_dir", "2:3"),
        ("backend = \"docker\"\n", "backend", "1:1"),
        ("[docker]\nhost = \"unix:///x\"\n", "docker", "1:2"),
        ("github_api_url = \"https://x\"\n", "github_api_url", "1:1"),
        ("[secrets]\nsecrets_dir = \"x\"\n", "secrets", "1:2"),
        ("secrets = { known_hosts_file = \"x\" }\n", "secrets", "1:1"),
        ("[serve]\nallowed_hosts = [\"x\"]\n", "serve", "1:2"),
        ("[services.a]\ndepth = 1\nimage = \"x\"\n", "services.a.image", "3:1"),
        ("services.a.secrets_dir = \"x\"\n", "services.a.secrets_dir", "1:12"),
        ("[agents.a]\ngithub_token_file = \"~/.ssh/id\"\n", "agents.a.github_token_file", "2:1"),
        ("[agents.b]\nplatform_token_file = \"x\"\n", "agents.b.platform_token_file", "2:1"),
        ("[agents.b]\n\"ssh_key_file\" = \"x\"\n", "agents.b.ssh_key_file", "2:1"),
        ("[agents.b]\ngit_hosts = [\"evil.example\"]\n", "agents.b.git_hosts", "2:1"),
        ("[serve]\naddress = \"0.0.0.0:1\"\n", "serve", "1:2"),
    ];
    for (text, key, place) in cases {
        let folders = Folders::new();
        let path = folders.write("repo", text);
        let problem = folders.read().unwrap_err();
        assert_eq!(problem.exit_code(), 78);
        let expected = format!("{}:{place}: `{key}` is not allowed", path.display());
        assert!(problem.message().starts_with(&expected), "{problem}");
        // A named file is trusted, and so is the user's own.
        assert!(read_named(&path, None, None).is_ok(), "{text}");
        std::fs::remove_file(path).unwrap();
        folders.write("user", text);
        assert!(folders.read().is_ok(), "{text}");
    }
}

#[test]
fn every_path_key_is_restricted_to_trusted_files() {
    let schema = serde_json::to_value(schemars::schema_for!(FileSettings)).unwrap();
    let mut groups = vec![(Vec::new(), &schema["properties"])];
    for (group, definition) in [
        ("services", "ServiceSettings"),
        ("agents", "AgentSettings"),
        ("secrets", "Secrets"),
        ("serve", "ServeSettings"),
    ] {
        groups.push((vec![group], &schema["$defs"][definition]["properties"]));
    }
    let mut seen = 0;
    for (group, properties) in groups {
        for (key, schema) in properties.as_object().unwrap() {
            let is_path =
                key.ends_with("_file") || key.ends_with("_dir") || key == "claude" || key == "supervisor";
            let covered = TRUSTED_ONLY.iter().any(|keys| match (group.first(), *keys) {
                (None, [only]) => only == key,
                (Some(group), [only]) => only == group,
                (Some(group), [first, _, last]) => first == group && last == key,
                _ => false,
            });
            assert!(covered || !is_path, "{group:?} {key} {schema}");
            seen += usize::from(is_path);
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn config_folder_as_working_directory_stays_trusted() {
    let folders = Folders::new();
    folders.write("user", "claude = \"/opt/claude\"\n");
    let user = folders.root.path().join("user");
    let layers = read_found(&user.join("sub"), Some(&user), None, None).unwrap();
    assert_eq!(layers.settings.claude.unwrap(), Path::new("/opt/claude"));
}
