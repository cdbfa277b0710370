//! A function that only reports the address of its Runtime API. The test sends raw requests in its place, also
//! invalid ones.

use std::{collections::HashMap, path::PathBuf};

use sandbox::{Environment, Function, Sandbox};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{PATIENCE, eventually, script};

pub struct Puppet {
    folder: TempDir,
}

/// A reply of the platform.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn error_type(&self) -> String {
        self.json()["errorType"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Puppet {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("address")
    }

    /// Each of its processes writes the address of its Runtime API.
    pub fn function(&self) -> Function {
        let file = self.file().display().to_string();
        let address = "${AWS_LAMBDA_RUNTIME_API-$SCF_RUNTIME_API:$SCF_RUNTIME_API_PORT}";
        script(&format!(
            "echo {address} >$FILE.new; mv $FILE.new $FILE; exec sleep 600"
        ))
        .env("FILE", file)
    }

    pub fn sandbox(&self) -> Sandbox {
        Sandbox::new(self.function()).freeze_between(false)
    }

    /// An environment whose first poll is waiting. `event` returns the poll's reply.
    pub async fn start(&self, sandbox: &Sandbox) -> (Environment, tokio::task::JoinHandle<Reply>) {
        let starting = tokio::spawn({
            let sandbox = sandbox.clone();
            async move { sandbox.start().await.unwrap() }
        });
        let address = self.address().await;
        let poll =
            tokio::spawn(async move { get(&address, "/2018-06-01/runtime/invocation/next").await });
        (timeout(PATIENCE, starting).await.unwrap().unwrap(), poll)
    }

    pub async fn address(&self) -> String {
        let read = || std::fs::read_to_string(self.file()).ok();
        eventually("the puppet's address", read)
            .await
            .trim()
            .to_owned()
    }
}

pub async fn get(address: &str, path: &str) -> Reply {
    request(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    )
    .await
}

pub async fn post(address: &str, path: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}");
    request(
        address,
        &format!("{head}Content-Length: {length}\r\n\r\n{body}"),
    )
    .await
}

pub async fn answer(address: &str, id: &str, body: &str) -> Reply {
    post(
        address,
        &format!("/2018-06-01/runtime/invocation/{id}/response"),
        "",
        body,
    )
    .await
}

/// Sends these bytes, and reads until the connection is closed.
pub async fn request(address: &str, text: &str) -> Reply {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let text = timeout(PATIENCE, exchange)
        .await
        .expect("an answer in time");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or("0");
    let headers = lines.filter_map(|line| line.split_once(": "));
    Reply {
        status: status.parse().unwrap(),
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
    }
}
