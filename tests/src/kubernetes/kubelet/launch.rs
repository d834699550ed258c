//! What a container's program is started with, and how it ended.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::environment::{Waiting, expand, variables};
use super::logs::Log;
use super::mounts::{Mounts, of_container, writable};
use super::process::{Group, MARKER};
use super::status::now;
use super::volumes::{Objects, Volumes};
use super::{Disruption, Fault, Inner, Running, items, lock, name_of, text};

/// Maximum bytes of a termination message.
const MESSAGE: usize = 4096;

/// Maximum bytes of the log as a termination message.
const LOG_AS_MESSAGE: usize = 2048;

/// Timeout for the rest of the output after the program exits.
const PIPES: Duration = Duration::from_secs(2);

/// A program to be started.
pub struct Prepared {
    program: PathBuf,
    arguments: Vec<String>,
    variables: BTreeMap<String, String>,
    folder: PathBuf,
    message: PathBuf,
    /// Directories that belong to the container alone.
    folders: Vec<PathBuf>,
}

/// Returns the injected fault that keeps an image from being pulled.
pub fn pull_fault(inner: &Inner, pod: &Value, container: &Value) -> Option<Fault> {
    let name = text(container, "/name");
    inner.fault_of(pod, |fault| {
        matches!(fault, Fault::ImagePull) || matches!(fault, Fault::ImagePullOf(of) if *of == name)
    })
}

/// Prepares the start of a container's program; `index` is that of the container in its pod.
pub fn prepare(
    inner: &Inner,
    pod: &Value,
    container: &Value,
    index: usize,
    objects: &Objects,
    volumes: &Volumes,
) -> Result<Prepared, Waiting> {
    let image = text(container, "/image");
    let refuses = |why: &str| Waiting {
        reason: "ErrImagePull",
        message: format!("failed to pull image \"{image}\": {why}"),
    };
    if pull_fault(inner, pod, container).is_some() {
        return Err(refuses("not found"));
    }
    let variables = variables(pod, container, objects)?;
    let words = |field: &str| -> Vec<String> {
        items(container, field).map(|it| expand(it.as_str().unwrap_or_default(), &variables)).collect()
    };
    let mut command = words("/command").into_iter();
    let program = match command.next() {
        Some(program) => Some(PathBuf::from(program)),
        None => inner.program_of(image),
    };
    let program = program.ok_or_else(|| refuses("the node knows no program for it"))?;
    let uid = text(pod, "/metadata/uid");
    let folder = inner.pod_folder(uid).join("containers").join(text(container, "/name"));
    std::fs::create_dir_all(&folder).expect("a folder for the container");
    // Short, since the path of a socket has a limit.
    let parents = inner.pod_folder(uid).join("up").join(index.to_string());
    let mut mounts = of_container(pod, container, &volumes.folders, &parents);
    let message = folder.join("termination-log");
    std::fs::write(&message, "").expect("a file for the termination message");
    mounts.add(text(container, "/terminationMessagePath"), message.clone());
    if pod.pointer("/spec/containers/0/name") == container.get("name") {
        volumes.translate(&mounts);
    }
    let mut folders = writable(container, &volumes.folders, inner.folder());
    folders.push(folder.clone());
    Ok(Prepared {
        program: mounts.path(program.to_str().expect("a path in UTF-8")),
        arguments: command.chain(words("/args")).map(|word| mounts.translate(&word)).collect(),
        variables: translated(inner, pod, container, variables, &mounts),
        folder: match text(container, "/workingDir") {
            "" => folder,
            folder => mounts.path(folder),
        },
        message,
        folders,
    })
}

/// Returns the mark of a container's processes.
fn mark(pod: &Value, container: &Value) -> String {
    format!("{}/{}", text(pod, "/metadata/uid"), text(container, "/name"))
}

fn translated(
    inner: &Inner,
    pod: &Value,
    container: &Value,
    variables: BTreeMap<String, String>,
    mounts: &Mounts,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("HOSTNAME".to_owned(), text(pod, "/metadata/name").to_owned()),
        (MARKER.to_owned(), mark(pod, container)),
        // The directories of programs on this machine; an image would contain them.
        ("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()),
    ]);
    all.extend(lock(&inner.image_variables).get(text(container, "/image")).cloned().unwrap_or_default());
    all.extend(variables.into_iter().map(|(name, value)| (name, mounts.translate(&value))));
    all
}

/// The program of a container, started.
pub struct Launched {
    pub child: Child,
    pub group: Group,
    pub started: String,
    struck: watch::Receiver<Option<Disruption>>,
    output: [JoinHandle<()>; 2],
    log: Arc<Log>,
}

/// Starts a container's program, or returns its state if that fails.
pub fn launch(inner: &Inner, pod: &Value, container: &Value, prepared: &Prepared) -> Result<Launched, Value> {
    let name = text(container, "/name");
    let log = inner.logs.begin(name_of(pod), name);
    let started = now();
    let fault = inner.fault_of(pod, |fault| matches!(fault, Fault::StartErrorOf(of) if *of == name));
    let child = match fault {
        Some(_) => Err(std::io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error())),
        None => spawn(prepared),
    };
    let mut child = child.map_err(|error| {
        log.end();
        let message = format!("exec: {:?}: {error}", prepared.program);
        json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": message,
            "startedAt": started, "finishedAt": now()}})
    })?;
    let pid = child.id().expect("it was not waited for");
    let group = Group::of(pid, &mark(pod, container), prepared.folders.clone());
    let (blow, struck) = watch::channel(None);
    let is_main = pod.pointer("/spec/containers/0/name") == container.get("name");
    let running = Running { group: group.clone(), is_main, blow };
    lock(&inner.running).insert((name_of(pod), name.to_owned()), running);
    if inner.over.load(Ordering::SeqCst) {
        group.kill();
    }
    let output = [
        tokio::spawn(Arc::clone(&log).read(child.stdout.take().expect("a pipe"))),
        tokio::spawn(Arc::clone(&log).read(child.stderr.take().expect("a pipe"))),
    ];
    Ok(Launched { child, group, started, struck, output, log })
}

fn spawn(prepared: &Prepared) -> std::io::Result<Child> {
    Command::new(&prepared.program)
        .args(&prepared.arguments)
        .env_clear()
        .envs(&prepared.variables)
        .current_dir(&prepared.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// How the program of a container ended.
pub struct Ended {
    /// `ContainerState`.
    pub state: Value,
    pub exit_code: i32,
    pub struck: Option<Disruption>,
}

impl Launched {
    /// Ends the rest of a container whose program exited.
    pub async fn finish(
        self,
        inner: &Inner,
        pod: &Value,
        container: &Value,
        prepared: &Prepared,
        status: ExitStatus,
    ) -> Ended {
        self.group.kill_rest();
        for output in self.output {
            // A process that left the group may hold the pipe open.
            tokio::time::timeout(PIPES, output).await.ok();
        }
        self.log.end();
        lock(&inner.running).remove(&(name_of(pod), text(container, "/name").to_owned()));
        let struck = *self.struck.borrow();
        // As a container runtime reports it.
        let exit_code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let mut message = std::fs::read(&prepared.message).unwrap_or_default();
        message.truncate(MESSAGE);
        let mut message = String::from_utf8_lossy(&message).into_owned();
        if message.is_empty()
            && exit_code != 0
            && text(container, "/terminationMessagePolicy") == "FallbackToLogsOnError"
        {
            message = self.log.tail(LOG_AS_MESSAGE);
        }
        let reason = match (struck, exit_code) {
            (Some(Disruption::OomKill), _) => "OOMKilled",
            (_, 0) => "Completed",
            _ => "Error",
        };
        let mut terminated = json!({"exitCode": exit_code, "reason": reason, "startedAt": self.started,
            "finishedAt": now()});
        if !message.is_empty() {
            terminated["message"] = json!(message);
        }
        Ended { state: json!({"terminated": terminated}), exit_code, struck }
    }
}
