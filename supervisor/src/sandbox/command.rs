//! The command line of `supervisor confined`, which carries a sandbox to its wrapper process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::spec::{Kind, NetworkView, Role, SandboxSpec};
use crate::process::{Environment, ProcessGroup, command};

/// The hidden subcommand.
const SUBCOMMAND: &str = "confined";

/// Builds a command that runs `program` in a sandbox, in a new process group.
///
/// The wrapper dies with this process, and everything in the sandbox with the wrapper.
#[must_use]
pub fn confined_command(
    supervisor: &Path,
    spec: &SandboxSpec,
    program: &Path,
    arguments: &[OsString],
    environment: &Environment,
) -> tokio::process::Command {
    let mut command = command(supervisor, environment, ProcessGroup::New);
    command.args(confined_arguments(spec, program, arguments, std::process::id()));
    command
}

/// Returns the arguments for a wrapper that the process `parent` starts.
#[must_use]
pub fn confined_arguments(
    spec: &SandboxSpec,
    program: &Path,
    arguments: &[OsString],
    parent: u32,
) -> Vec<OsString> {
    let mut all: Vec<OsString> = [
        SUBCOMMAND,
        "--kind",
        spec.kind.name(),
        "--network",
        spec.network.name(),
        "--oom-score",
        &spec.limits.oom_score_adj.to_string(),
        "--parent",
        &parent.to_string(),
    ]
    .map(OsString::from)
    .into();
    if spec.private_tmp {
        all.push("--private-tmp".into());
    }
    for (flag, paths) in [("--read", &spec.readable), ("--write", &spec.writable), ("--hide", &spec.hidden)] {
        all.extend(paths.iter().flat_map(|path| [flag.into(), path.clone().into_os_string()]));
    }
    all.push("--".into());
    all.push(program.into());
    all.extend(arguments.iter().cloned());
    all
}

/// What a wrapper process was asked to do.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Request {
    pub(super) spec: SandboxSpec,
    /// Process id of the supervisor.
    pub(super) parent: i32,
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
}

impl Request {
    /// Parses the arguments after the subcommand; returns `None` for malformed ones.
    pub(super) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        // The wrapper does the same for all roles.
        let mut spec = SandboxSpec::new(Role::Agent, Kind::Namespaces);
        spec.private_tmp = false;
        let (mut kind, mut parent) = (None, None);
        loop {
            let argument = arguments.next()?;
            let mut value = || arguments.next();
            match argument.to_str()? {
                "--kind" => kind = Some(Kind::from_name(value()?.to_str()?)?),
                "--network" => spec.network = network(value()?.to_str()?)?,
                "--oom-score" => spec.limits.oom_score_adj = value()?.to_str()?.parse().ok()?,
                "--parent" => parent = Some(value()?.to_str()?.parse().ok()?),
                "--private-tmp" => spec.private_tmp = true,
                "--read" => spec.readable.push(PathBuf::from(value()?)),
                "--write" => spec.writable.push(PathBuf::from(value()?)),
                "--hide" => spec.hidden.push(PathBuf::from(value()?)),
                "--" => break,
                _ => return None,
            }
        }
        spec.kind = kind?;
        Some(Self { spec, parent: parent?, program: arguments.next()?, arguments: arguments.collect() })
    }
}

fn network(name: &str) -> Option<NetworkView> {
    [NetworkView::Open, NetworkView::None].into_iter().find(|view| view.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt as _;

    #[test]
    fn wrapper_arguments_carry_whole_description() {
        let mut spec = SandboxSpec::new(Role::Agent, Kind::Landlock)
            .read(["/usr", "--write", "/a b"])
            .write([PathBuf::from(OsString::from_vec(b"/caf\xe9".to_vec()))]);
        spec.hidden.push("/etc/shadow".into());
        spec.network = NetworkView::None;
        spec.limits.oom_score_adj = 250;
        for private_tmp in [true, false] {
            spec.private_tmp = private_tmp;
            let arguments = [OsString::from("--kind"), OsString::from("off")];
            let line = confined_arguments(&spec, Path::new("/bin/x"), &arguments, 7);
            let request = Request::parse(line.into_iter().skip(1)).unwrap();
            let program = "/bin/x".into();
            assert_eq!(
                request,
                Request { spec: spec.clone(), parent: 7, program, arguments: arguments.into() }
            );
        }
    }

    #[test]
    fn malformed_wrapper_arguments_are_rejected() {
        for line in [
            "",
            "--kind namespaces --parent 1 --",
            "--parent 1 -- /bin/sh",
            "--kind namespaces -- /bin/sh",
            "--kind open --parent 1 -- /bin/sh",
            "--kind off --parent 1 --open -- /bin/sh",
            "--kind off --parent 1 /bin/sh",
        ] {
            let arguments = line.split_whitespace().map(OsString::from);
            assert_eq!(Request::parse(arguments), None, "{line}");
        }
    }
}
