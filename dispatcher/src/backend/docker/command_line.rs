//! The `docker run` command line of a container.

use super::spec::{Access, ContainerSpec, IPC, LOG_DRIVER, Populate, TMP, VolumeMount};

/// Which standard streams are connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Terminal {
    /// Stdin and stdout of a terminal.
    Yes,
    /// Stdin and stdout, not of a terminal.
    Input,
    /// Stdout only, not of a terminal.
    No,
}

/// Builds the arguments after `docker`. The container is removed when it exits.
pub(super) fn build_arguments(spec: &ContainerSpec, terminal: Terminal) -> Vec<String> {
    let ContainerSpec {
        name,
        image,
        labels,
        environment,
        entrypoint,
        arguments,
        folder,
        volumes,
        user,
        network,
        memory,
        cpus,
        pids,
        stop_timeout_seconds: stop_seconds,
        // It excludes `--rm`.
        restart: _,
        log_size,
    } = spec;
    let mut line: Vec<String> = vec!["run".to_owned(), "--rm".to_owned()];
    match terminal {
        Terminal::Yes => line.extend(["--interactive".to_owned(), "--tty".to_owned()]),
        Terminal::Input => line.push("--interactive".to_owned()),
        Terminal::No => {}
    }
    let mut option = |name: &str, value: &str| line.push(format!("--{name}={value}"));
    option("name", name);
    option("user", &user.to_string());
    option("read-only", "true");
    option("tmpfs", &format!("/tmp:{TMP}"));
    option("cap-drop", "ALL");
    option("security-opt", "no-new-privileges");
    option("init", "false");
    option("ipc", IPC);
    option("no-healthcheck", "true");
    option("memory", &memory.to_string());
    option("memory-swap", &memory.to_string());
    if let Some(cpus) = cpus {
        option("cpus", &cpus.number().to_string());
    }
    option("pids-limit", &pids.to_string());
    option("stop-timeout", &stop_seconds.to_string());
    option("log-driver", LOG_DRIVER);
    option("log-opt", &format!("max-size={log_size}"));
    if let Some(network) = network {
        option("network", network);
    }
    for VolumeMount { name, target, labels: _, populate, access } in volumes {
        let (source, target) = (format!("source={name}"), format!("target={target}"));
        let mut fields = vec!["type=volume"];
        fields.extend((*populate == Populate::No).then_some("volume-nocopy"));
        fields.extend((*access == Access::Read).then_some("readonly"));
        fields.extend([source.as_str(), target.as_str()]);
        option("mount", &mount(&fields));
    }
    for (name, value) in labels {
        option("label", &format!("{name}={value}"));
    }
    for (name, value) in environment {
        option("env", &format!("{name}={value}"));
    }
    if let Some(folder) = folder {
        option("workdir", folder);
    }
    if let Some(entrypoint) = entrypoint {
        option("entrypoint", entrypoint);
    }
    line.push(image.clone());
    line.extend(arguments.iter().cloned());
    line
}

/// Renders the value of `--mount`, a CSV line.
fn mount(fields: &[&str]) -> String {
    let quoted = |field: &&str| {
        if field.contains([',', '"', '\n']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            (*field).to_owned()
        }
    };
    fields.iter().map(quoted).collect::<Vec<_>>().join(",")
}

/// Quotes a word for a POSIX shell.
pub(crate) fn quote(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Renders a command line for a shell, one option per line.
pub(super) fn render(program: &str, arguments: &[String]) -> String {
    let mut text = quote(program);
    // Only the options of `run` get their own lines; the arguments after the image do not.
    let run = arguments.iter().position(|argument| argument == "run").unwrap_or(arguments.len());
    let mut in_options = false;
    for (at, argument) in arguments.iter().enumerate() {
        text.push_str(if in_options { " \\\n    " } else { " " });
        text.push_str(&quote(argument));
        in_options = at == run || (in_options && argument.starts_with("--"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::docker::spec;
    use proptest::prelude::*;

    #[test]
    fn docker_command_line_has_every_container_option() {
        let spec = spec::tests::sample();
        insta::assert_snapshot!(render("docker", &build_arguments(&spec, Terminal::No)));
    }

    #[test]
    fn mount_path_with_comma_is_quoted_as_one_field() {
        assert_eq!(mount(&["type=bind", "source=/a,b\"c"]), "type=bind,\"source=/a,b\"\"c\"");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rendered_words_survive_shell_parsing(words in proptest::collection::vec("[^\\x00]{0,12}", 1..4)) {
            let line = render("printf", &std::iter::once("%s\\0".to_owned()).chain(words.clone()).collect::<Vec<_>>());
            let mut shell = crate::process::command(std::path::Path::new("/bin/sh"));
            shell.args(["-c", &line]);
            let output = shell.output().unwrap();
            let read = String::from_utf8(output.stdout).unwrap();
            let read: Vec<_> = read.split_terminator('\0').map(str::to_owned).collect();
            prop_assert_eq!(read, words);
        }
    }
}
