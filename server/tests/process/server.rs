//! A real server process, and devices that speak the protocol with it by hand.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstitch_protocol::catalog::{Catalog, TaskEntry};
use backstitch_protocol::contribution::{Contribution, Nullifier};
use backstitch_protocol::delta::Delta;
use backstitch_protocol::id::Name;
use backstitch_protocol::token::{Blinding, Profile, TokenAnswer, TokenRequest, TokenScope};
use backstitch_protocol::trust::SignedCatalog;

/// What every run of a story starts from: the data of a server that has imported the sample library.
pub(super) struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// With the library's one task changed.
    pub(super) fn set(edit: impl FnOnce(&mut serde_json::Value)) -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap() };
        let library = stage.path("library");
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/models/fashion"), &library);
        let text = std::fs::read(library.join("library.json")).unwrap();
        let mut descriptor: serde_json::Value = serde_json::from_slice(&text).unwrap();
        edit(&mut descriptor["tasks"][0]);
        std::fs::write(library.join("library.json"), descriptor.to_string()).unwrap();
        let library = library.to_str().unwrap();
        command(&["library", "import", library], &stage.path("data"));
        stage
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// What a command that succeeds prints.
pub(super) fn command(words: &[&str], data: &Path) -> String {
    let done = backstitch(words, data).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn backstitch(words: &[&str], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstitch"));
    command.args(words).arg("--data").arg(data);
    command
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A server process; dropped, it is killed.
pub(super) struct Process {
    pub(super) child: Child,
    port: u16,
}

impl Process {
    /// `None` where it dies before it listens.
    pub(super) fn start(data: &Path, more: &[(&str, &str)]) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = serve(data, port);
        command.envs(more.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Self { child: command.spawn().unwrap(), port };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if process.child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(process)
    }

    /// What a server says that does not start, which is one line.
    pub(super) fn refused(data: &Path, more: &[(&str, &str)]) -> String {
        let mut command = serve(data, 0);
        command.envs(more.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Self { child: command.spawn().unwrap(), port: 0 };
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            match process.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                None => panic!("a server that should not start serves"),
            }
        };
        let mut said = String::new();
        process.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), said.lines().count()), (Some(1), 1), "{said}");
        said
    }

    /// What `backstitch doctor` finds wrong with a folder.
    pub(super) fn doctor(data: &Path) -> String {
        let found = backstitch(&["doctor"], data).output().unwrap();
        assert_eq!(found.status.code(), Some(1));
        String::from_utf8(found.stdout).unwrap()
    }

    /// The body of the answer to a request; `None` where the server is gone.
    pub(super) fn fetch(&self, head: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(format!("{head}host: x\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        Some(bytes.split_off(end + 4))
    }

    fn ask(&self, head: &str, body: &[u8]) -> Option<String> {
        self.fetch(head, body).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    pub(super) fn signed(&self) -> Option<SignedCatalog> {
        let text = self.ask("GET /v1/libraries/fashion/catalog HTTP/1.1\r\n", b"")?;
        serde_json::from_str(&text).ok()
    }

    pub(super) fn catalog(&self) -> Option<Catalog> {
        Some(serde_json::from_str(&self.signed()?.payload).unwrap())
    }

    /// The header with a device's token for this round, or the server's refusal.
    pub(super) fn draw(&self, task: &TaskEntry, device: u8) -> Option<Result<String, String>> {
        let library = Name::new("fashion").unwrap();
        let blinding = Blinding::derive(&[device; 32], &task.name, task.round).unwrap();
        let request = TokenRequest {
            task: format!("{library}.{}", task.name),
            round: task.round,
            profile: Profile::derive(&[device; 32]),
            blinded: blinding.blinded().clone(),
            voucher: None,
        };
        let body = serde_json::to_vec(&request).unwrap();
        let head = format!(
            "POST /v1/tokens HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        let text = self.ask(&head, &body).filter(|answer| !answer.is_empty())?;
        let Ok(answer) = serde_json::from_str::<TokenAnswer>(&text) else {
            return Some(Err(text));
        };
        let scope = TokenScope { library: &library, task: &task.name, round: task.round };
        let token = blinding.finish(&answer, task.token_key.as_ref().unwrap(), &scope).unwrap();
        Some(Ok(format!("authorization: Bearer {}\r\n", token.hex())))
    }

    pub(super) fn contribute(&self, frame: &[u8], token: &str) -> Option<String> {
        let head = format!(
            "POST /v1/tasks/fashion.personal-style/contributions HTTP/1.1\r\n{token}content-type: application/vnd.backstitch.contribution\r\ncontent-length: {}\r\n",
            frame.len()
        );
        self.ask(&head, frame).filter(|answer| !answer.is_empty())
    }

    /// Asks it to stop. Whether it was killed instead: a shutdown writes as well.
    pub(super) fn end(mut self) -> bool {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().signal() == Some(9)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server on this folder, with what was imported into it and nothing else.
fn serve(data: &Path, port: u16) -> Command {
    let mut command = backstitch(&["serve"], data);
    command
        .env("BACKSTITCH_LIBRARIES", "[]")
        .env("BACKSTITCH_PUBLIC__LISTEN", format!("127.0.0.1:{port}"))
        .env("BACKSTITCH_ADMIN__LISTEN", "127.0.0.1:0")
        .env("BACKSTITCH_LOG__FILTER", "off");
    command
}

/// The frame of a device whose training changed these values.
pub(super) fn frame(task: &TaskEntry, device: u8, changes: &[(usize, f32)]) -> Vec<u8> {
    let zeros = vec![0.0; task.parameters as usize];
    let mut trained = zeros.clone();
    changes.iter().for_each(|(index, change)| trained[*index] = *change);
    let delta = Delta::between(&zeros, &trained).unwrap().clip(task.clip_norm).unwrap();
    Contribution::new(task.base, Nullifier::derive(&[device; 32], &task.name, task.round), delta)
        .encode()
}
