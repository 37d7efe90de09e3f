//! The running `cumulet serve` of a state folder, asked as any other client of its API asks.
//!
//! An instance that the API launched is the server's to change: then its state, reason and addresses are what the API says.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hmac::Mac as _;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::net::TcpStream;

use super::env;
use crate::api::credentials::AccessKey;
use crate::api::{form, sigv4};
use crate::error::{Context as _, Error, Kind, Result};
use crate::state::Home;
use crate::state::record::{Record, State, StateReason};

const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// Version of EC2's API that is spoken.
const VERSION: &str = "2016-11-15";
/// How long the server may take to answer. It answers before anything is done.
const ANSWER: Duration = Duration::from_secs(60);
/// How often it is asked how far an instance is.
const ASK: Duration = Duration::from_millis(250);

/// A running server, and the key that it is asked with.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    key: AccessKey,
}

/// An instance as the API names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) id: &'a str,
    pub(super) region: &'a str,
}

/// What the API says of an instance.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) state: State,
    pub(super) reason: Option<StateReason>,
}

impl<'a> Target<'a> {
    /// None when the instance was launched without the API.
    pub(super) fn of(record: &'a Record) -> Option<Self> {
        record.place.as_ref().map(|place| Self {
            id: &record.instance_id,
            region: &place.region,
        })
    }
}

impl Server {
    /// The server of this state folder, if one runs.
    pub(super) fn find(home: &Home) -> Result<Option<Self>> {
        let Some(running) = env::running(home.root())? else {
            return Ok(None);
        };
        let address = running.endpoint.trim_start_matches("http://");
        Ok(Some(Self {
            address: address
                .parse()
                .context(|| format!("`{}` is no address of a server", running.endpoint))?,
            key: env::key(home.root(), &running)?,
        }))
    }

    /// Asks for a change of state; gives the state before.
    pub(super) fn change(
        &self,
        action: &str,
        target: Target<'_>,
        more: &[(&str, &str)],
    ) -> Result<State> {
        let xml = self.call(action, target, more)?;
        let previous = element(&xml, "previousState").and_then(|state| element(state, "name"));
        previous.and_then(state).ok_or_else(|| odd(action, &xml))
    }

    /// Asks for a reboot. It is done when the guest has shut down, which EC2's API does not tell.
    pub(super) fn reboot(&self, target: Target<'_>) -> Result<()> {
        self.call("RebootInstances", target, &[]).map(drop)
    }

    /// Waits until the instance is in one of these states. `late` is called once, when `patience` is over.
    pub(super) fn wait(
        &self,
        target: Target<'_>,
        wanted: &[State],
        patience: Duration,
        late: impl FnOnce() -> Result<()>,
    ) -> Result<Told> {
        let begun = Instant::now();
        let mut late = Some(late);
        loop {
            let told = self.look(target)?;
            if wanted.contains(&told.state) {
                return Ok(told);
            }
            if begun.elapsed() >= patience
                && let Some(late) = late.take()
            {
                late()?;
            }
            thread::sleep(ASK);
        }
    }

    fn look(&self, target: Target<'_>) -> Result<Told> {
        let action = "DescribeInstances";
        let xml = match self.call(action, target, &[]) {
            Ok(xml) => xml,
            // It was shown as terminated for long enough.
            Err(error) if error.code == "InvalidInstanceID.NotFound" => {
                return Ok(Told {
                    state: State::Terminated,
                    reason: None,
                });
            }
            Err(error) => return Err(error),
        };
        let name = element(&xml, "instanceState").and_then(|state| element(state, "name"));
        let reason = element(&xml, "stateReason").and_then(|reason| {
            let (code, message) = (element(reason, "code")?, element(reason, "message")?);
            Some(StateReason::new(&plain(code), plain(message)))
        });
        Ok(Told {
            state: name.and_then(state).ok_or_else(|| odd(action, &xml))?,
            reason,
        })
    }

    /// One request about one instance; the XML that comes back.
    fn call(&self, action: &str, target: Target<'_>, more: &[(&str, &str)]) -> Result<String> {
        let fixed = [
            ("Action", action),
            ("Version", VERSION),
            ("InstanceId.1", target.id),
        ];
        let body = form::canonical(fixed.iter().chain(more).copied());
        let request = self.request(target.region, &body)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "cannot ask the server")?;
        let answer = runtime.block_on(async {
            let answer = tokio::time::timeout(ANSWER, post(self.address, request)).await;
            answer.unwrap_or_else(|late| Err(Box::new(late)))
        });
        let (status, xml) = answer.map_err(|error| {
            Error::new(
                Kind::Conflict,
                "NotServing",
                format!(
                    "the server of this state folder, {}, does not answer",
                    self.address
                ),
            )
            .because(&*error)
            .mend("it may be starting or ending: try again")
        })?;
        if status == StatusCode::OK {
            return Ok(xml);
        }
        let part = |name: &str| element(&xml, name).map(plain);
        match (part("Code"), part("Message")) {
            (Some(code), Some(message)) => Err(refusal(target, &code, message)),
            _ => Err(odd(action, &xml)),
        }
    }

    /// Signed by Signature Version 4.
    fn request(&self, region: &str, body: &str) -> Result<Request<Full<Bytes>>> {
        let doing = || "cannot sign a request to the server";
        let signed = "content-type;host;x-amz-date";
        let host = self.address.to_string();
        let date = sigv4::basic_time(OffsetDateTime::now_utc());
        let day = date.split('T').next().unwrap_or_default();
        let scope = format!("{day}/{region}/ec2/aws4_request");
        let digest = |text: &str| hex::encode(Sha256::digest(text));
        let canonical = format!(
            "POST\n/\n\ncontent-type:{FORM}\nhost:{host}\nx-amz-date:{date}\n\n{signed}\n{}",
            digest(body)
        );
        let algorithm = sigv4::ALGORITHM;
        let to_sign = format!("{algorithm}\n{date}\n{scope}\n{}", digest(&canonical));
        let mut key = format!("AWS4{}", self.key.secret).into_bytes();
        for part in scope.split('/').chain([to_sign.as_str()]) {
            let mac = sigv4::keyed(&key, part.as_bytes()).context(doing)?;
            key = mac.finalize().into_bytes().to_vec();
        }
        let authorization = format!(
            "{algorithm} Credential={}/{scope}, SignedHeaders={signed}, Signature={}",
            self.key.id,
            hex::encode(key)
        );
        Request::post("/")
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, FORM)
            .header("x-amz-date", date)
            .header(header::AUTHORIZATION, authorization)
            .body(Full::new(Bytes::from(body.to_owned())))
            .context(doing)
    }
}

async fn post(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let tcp = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.to_vec())?))
}

/// EC2's error in our terms.
fn refusal(target: Target<'_>, code: &str, message: String) -> Error {
    let kind = match code {
        "InvalidInstanceID.NotFound" => Kind::NotFound,
        "IncorrectInstanceState" | "IncorrectState" | "OperationNotPermitted" => Kind::Conflict,
        _ if code.starts_with("Insufficient") => Kind::Host,
        _ if code.starts_with("Internal") => Kind::Internal,
        _ => Kind::Usage,
    };
    let error = Error::new(kind, code, message);
    if kind == Kind::NotFound {
        return error.mend(format!(
            "the server does not know {}, though it is in this state folder: end `cumulet serve` and say it again",
            target.id
        ));
    }
    error
}

fn odd(action: &str, answer: &str) -> Error {
    let begin: String = answer.chars().take(200).collect();
    Error::internal(format!("the answer to {action} is not understood: {begin}"))
}

/// What is in the first element of this name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inside)
}

/// Text without XML's escapes.
fn plain(text: &str) -> String {
    let escapes = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        // Last: what it uncovers is no escape.
        ("&amp;", "&"),
    ];
    escapes
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn state(name: &str) -> Option<State> {
    serde_json::from_value(name.into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        let xml = "<a><previousState><code>16</code><name>running</name></previousState></a>";
        let name = element(xml, "previousState").and_then(|inside| element(inside, "name"));
        assert_eq!(name.and_then(state), Some(State::Running));
        assert_eq!(state("shutting-down"), Some(State::ShuttingDown));
        assert_eq!(state("asleep"), None);
        assert_eq!(element(xml, "Code"), None);
        assert_eq!(plain("&lt;a&gt; &amp;lt; &quot;&apos;"), "<a> &lt; \"'");
    }
}
