//! `cumulet serve` from a test, and a client of its API that signs its requests itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::HANG_GUARD;
use crate::cumulet::Cumulet;
use crate::process::Process;

const FORM: &str = "application/x-www-form-urlencoded";

/// A running server.
pub struct Serve {
    process: Process,
    host: String,
    key: String,
    secret: String,
    region: String,
}

/// What the API answers.
pub type Answer = Result<String, Refusal>;

/// An error of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `InvalidInstanceID.NotFound`.
    pub code: String,
    /// In words.
    pub message: String,
}

impl Serve {
    /// Starts the server of a state folder and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(cumulet: &Cumulet) -> Self {
        Self::start_with(cumulet, &[])
    }

    /// As [`Serve::start`], with more arguments.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    pub fn start_with(cumulet: &Cumulet, more: &[&str]) -> Self {
        let args = ["serve", "--listen", "127.0.0.1:0", "--output", "json"];
        let args = [&args, more].concat();
        let process = Process::start(&mut cumulet.command(&args));
        let line = process
            .stdout
            .wait_line(0, |line| line.starts_with('{').then(|| line.to_owned()));
        let Some((line, _)) = line else {
            panic!(
                "the server does not listen: {}\n{}",
                process.stdout.text(),
                process.stderr.text()
            );
        };
        let told: Value = serde_json::from_str(&line).unwrap();
        let text = |key: &str| told[key].as_str().unwrap().to_owned();
        Self {
            host: text("endpoint").trim_start_matches("http://").to_owned(),
            key: text("access_key_id"),
            secret: text("secret_access_key"),
            region: text("region"),
            process,
        }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// `kill -9`.
    pub fn kill(self) {
        // A process is killed when it is dropped.
        drop(self.process);
    }

    /// Environment with which the `aws` CLI and SDKs find the server.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.host)),
            ("AWS_ACCESS_KEY_ID", self.key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.clone()),
            ("AWS_DEFAULT_REGION", self.region.clone()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// Calls an action.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn call(&self, action: &str, fields: &[(&str, &str)]) -> Answer {
        let mut body = format!("Action={action}&Version=2016-11-15");
        for (name, value) in fields {
            body.push_str(&format!("&{name}={}", encode(value)));
        }
        eprintln!("api: {action} {fields:?}");
        let answer = self.post(&body);
        let (head, xml) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if head.starts_with("HTTP/1.1 200") {
            return Ok(xml.to_owned());
        }
        Err(Refusal {
            code: text(xml, "Code"),
            message: text(xml, "Message"),
        })
    }

    fn post(&self, body: &str) -> String {
        let date = amz_date();
        let scope = format!("{}/{}/ec2/aws4_request", &date[..8], self.region);
        let digest = hex::encode(Sha256::digest(body));
        let canonical = format!(
            "POST\n/\n\ncontent-type:{FORM}\nhost:{}\nx-amz-date:{date}\n\ncontent-type;host;x-amz-date\n{digest}",
            self.host
        );
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            hex::encode(Sha256::digest(canonical))
        );
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [&date[..8], &self.region, "ec2", "aws4_request"] {
            key = sign(&key, part);
        }
        let signature = hex::encode(sign(&key, &to_sign));
        let request = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: {FORM}\r\nx-amz-date: {date}\r\n\
             authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, \
             SignedHeaders=content-type;host;x-amz-date, Signature={signature}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.host,
            self.key,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.host).expect("the server answers");
        stream.set_read_timeout(Some(HANG_GUARD)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Waits until the instance is in this state; what DescribeInstances says then.
    ///
    /// # Panics
    /// When it never is.
    #[track_caller]
    pub fn until(&self, id: &str, state: &str) -> String {
        let end = Instant::now() + HANG_GUARD;
        loop {
            let shown = self
                .call("DescribeInstances", &[("InstanceId.1", id)])
                .unwrap();
            if shown.contains(&format!("<name>{state}</name>")) {
                return shown;
            }
            let over = shown.contains("<name>terminated</name>");
            assert!(
                !over && Instant::now() < end,
                "{id} never was {state}: {shown}"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `20261121T182733Z`.
fn amz_date() -> String {
    let date = Command::new("date")
        .args(["-u", "+%Y%m%dT%H%M%SZ"])
        .stdin(Stdio::null())
        .output()
        .expect("date");
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

/// The text of the first element with this name; empty when there is none.
#[must_use]
pub fn text(xml: &str, name: &str) -> String {
    let rest = xml.split_once(&format!("<{name}>")).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split_once('<'))
        .map_or_else(String::new, |(text, _)| text.to_owned())
}
