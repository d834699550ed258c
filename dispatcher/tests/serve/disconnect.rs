//! Disconnecting clients: submitting again returns the same run.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;

use super::bench::eventually;
use super::http::{connect, cut};
use super::server::{Server, bench, submission};

/// How a client disconnects.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
}

fn vanish(stream: TcpStream, end: End) {
    match end {
        End::Close => drop(stream),
        End::Reset => cut(stream),
    }
}

#[test]
fn incomplete_request_starts_no_run() {
    let bench = bench();
    let server = Server::start(&bench);
    let bytes = submission(1).bytes();
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    for end in [End::Close, End::Reset] {
        for sent in 0..bytes.len() {
            let mut stream = connect(server.address);
            stream.write_all(&bytes[..sent]).unwrap();
            vanish(stream, end);
        }
    }
    // A complete head is a call whose end is logged. A reset overtakes some of them.
    let complete = bytes.len() - head;
    eventually("the audited calls", || server.calls().len() >= complete);
    assert!(server.calls().iter().all(|call| call["result"] != "ok"), "{:?}", server.calls());
    assert_eq!(bench.runs().len(), 0);
    assert_eq!(server.submit(1)["structuredContent"]["result"], "created");
    assert_eq!(bench.runs().len(), 1);
}

#[test]
fn resubmit_after_disconnect_returns_same_run() {
    let bench = bench();
    let mut server = Server::start(&bench);
    let whole = server_answer_length(&server);
    let mut task = 1;
    // Disconnects after this many bytes of the response.
    for read in [0, 1, 15, 40, whole / 2, whole - 1] {
        for end in [End::Close, End::Reset] {
            task += 1;
            let mut stream = connect(server.address);
            stream.write_all(&submission(task).bytes()).unwrap();
            stream.read_exact(&mut vec![0; read]).unwrap();
            vanish(stream, end);
            let again = server.submit(task);
            let started = again["structuredContent"]["result"].as_str().unwrap();
            assert!(["created", "already_running"].contains(&started), "{again}");
            assert!(read == 0 || started == "already_running", "{again}");
        }
    }
    // On termination, the server finishes the calls of disconnected clients.
    server.signal(Signal::TERM);
    assert_eq!(server.ended(), Some(0));
    let mut runs: Vec<u64> = bench.runs().iter().map(|run| run["task_id"].as_u64().unwrap()).collect();
    runs.sort_unstable();
    let once: Vec<u64> = (1..=u64::try_from(task).unwrap()).collect();
    assert_eq!(runs, once);
}

/// Returns the length of the response to a submission.
fn server_answer_length(server: &Server) -> usize {
    let answer = submission(1).send(server.address);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.head.len() + answer.body.len()
}
