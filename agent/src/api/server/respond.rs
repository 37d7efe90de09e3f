//! One request: who calls, what they want, the answer.

use http::request::Parts;
use http::{Method, StatusCode};

use super::State;
use crate::api::error::ApiError;
use crate::api::sigv4::{self, Caller, Signed};
use crate::api::wire::Node;
use crate::api::{Call, form, sts};

/// Dates of EC2's API, oldest first. Requests of all of them are read by the newest one's rules, which only added.
#[rustfmt::skip]
const VERSIONS: &[&str] = &[
    "2006-06-26", "2006-10-01", "2007-01-03", "2007-01-19", "2007-03-01", "2007-08-29", "2008-02-01", "2008-05-05",
    "2008-08-08", "2008-12-01", "2009-03-01", "2009-04-04", "2009-07-15", "2009-08-15", "2009-10-31", "2009-11-30",
    "2010-06-15", "2010-08-31", "2010-11-15", "2011-01-01", "2011-02-28", "2011-05-15", "2011-07-15", "2011-11-01",
    "2011-12-01", "2011-12-15", "2012-03-01", "2012-04-01", "2012-05-01", "2012-06-01", "2012-06-15", "2012-07-20",
    "2012-08-15", "2012-10-01", "2012-12-01", "2013-02-01", "2013-06-15", "2013-07-15", "2013-08-15", "2013-10-01",
    "2013-10-15", "2014-02-01", "2014-05-01", "2014-06-15", "2014-09-01", "2014-10-01", "2015-03-01", "2015-04-15",
    "2015-10-01", "2016-04-01", "2016-09-15", "2016-11-15",
];

/// An answer: status and document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// XML.
    pub document: String,
    /// For the log.
    pub(super) outcome: String,
}

impl Answer {
    /// An error in the form of EC2.
    pub(super) fn error(error: &ApiError, request_id: &str) -> Self {
        Self {
            status: status(error.status()),
            document: error.document(request_id),
            outcome: error.to_string(),
        }
    }

    fn sts_error(error: &ApiError, request_id: &str) -> Self {
        let (code, document) = sts::error(error, request_id);
        Self {
            status: status(code),
            document,
            outcome: error.to_string(),
        }
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl State {
    /// Serves one request whose body is here. It may take as long as its action does.
    #[must_use]
    pub fn respond(&self, head: &Parts, body: &[u8], request_id: &str) -> Answer {
        let fields = match Fields::read(head, body) {
            Ok(fields) => fields,
            Err(error) => return Answer::error(&error, request_id),
        };
        let sts = fields.value("Version") == Some(sts::VERSION);
        match self.serve(head, body, fields, request_id) {
            Ok(document) => Answer {
                status: StatusCode::OK,
                document,
                outcome: "OK".to_owned(),
            },
            Err(error) if sts => Answer::sts_error(&error, request_id),
            Err(error) => Answer::error(&error, request_id),
        }
    }

    fn serve(
        &self,
        head: &Parts,
        body: &[u8],
        fields: Fields,
        request_id: &str,
    ) -> Result<String, ApiError> {
        let signed = Signed {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: &fields.query,
            headers: &head.headers,
            body,
        };
        let now = (self.config.clock)();
        let caller = sigv4::verify(&signed, &fields.form, &self.credentials, now)?;
        if head.uri.path() != "/" {
            return Err(ApiError::new(
                "InvalidRequest",
                format!("There is nothing at {}; the API is at /", head.uri.path()),
            ));
        }
        let node = fields.tree()?;
        let action = node.text("Action").ok_or_else(|| {
            ApiError::new(
                "MissingAction",
                "The request is missing an action or a required parameter",
            )
        })?;
        service(&caller, node.text("Version"))?;
        let call = Call {
            account: caller
                .account
                .unwrap_or_else(|| self.cloud.identity().account.clone()),
            region: caller.region,
            access_key: caller.access_key,
            request_id: request_id.to_owned(),
            dry_run: dry_run(&node)?,
        };
        tracing::debug!(action, region = call.region, request_id, "request");
        if caller.service == "sts" {
            sts::serve(&call, action, &node)
        } else {
            self.actions.serve(&self.cloud, &call, action, &node)
        }
    }
}

/// Makes sure that the version is one of the service that the signature is for.
fn service(caller: &Caller, version: Option<&str>) -> Result<(), ApiError> {
    let version = version.ok_or_else(|| ApiError::missing("Version"))?;
    let sts = caller.service == "sts";
    match (version == sts::VERSION, VERSIONS.contains(&version)) {
        (true, _) if sts => Ok(()),
        (_, true) if !sts => Ok(()),
        (false, false) => {
            let name = if sts {
                "AWSSecurityTokenService"
            } else {
                "AmazonEC2"
            };
            Err(ApiError::new(
                "NoSuchVersion",
                format!("The requested version ({version}) of service {name} does not exist"),
            ))
        }
        // A version of the other one.
        _ => {
            let wanted = if sts { "ec2" } else { "sts" };
            Err(ApiError::new(
                "SignatureDoesNotMatch",
                format!("Credential should be scoped to correct service: '{wanted}'."),
            ))
        }
    }
}

fn dry_run(node: &Node) -> Result<bool, ApiError> {
    let Some(text) = node.text("DryRun") else {
        return Ok(false);
    };
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ApiError::value("DryRun", text, "use true or false")),
    }
}

/// Decoded parameters.
struct Fields {
    query: Vec<(String, String)>,
    form: Vec<(String, String)>,
}

impl Fields {
    fn read(head: &Parts, body: &[u8]) -> Result<Self, ApiError> {
        if head.method != Method::POST && head.method != Method::GET {
            return Err(ApiError::new(
                "InvalidRequest",
                format!("{} is not served; use POST or GET", head.method),
            ));
        }
        if head.method == Method::GET && !body.is_empty() {
            return Err(ApiError::new(
                "InvalidRequest",
                "A GET request has no body; its parameters are in the query string",
            ));
        }
        Ok(Self {
            query: form::parse(head.uri.query().unwrap_or_default().as_bytes())?,
            form: form::parse(body)?,
        })
    }

    fn value(&self, wanted: &str) -> Option<&str> {
        let mut all = self.query.iter().chain(&self.form);
        let (_, value) = all.find(|(name, _)| name == wanted)?;
        Some(value)
    }

    /// The parameters of the action: all but those of a presigned request's signature.
    fn tree(self) -> Result<Node, ApiError> {
        let query = self.query.into_iter();
        let fields = query.filter(|(name, _)| !sigv4::is_presigned(name));
        Node::tree(fields.chain(self.form)).map_err(|error| {
            ApiError::new(
                "MalformedQueryString",
                format!("The query string contains a syntax error: {error}"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(service: &str) -> Caller {
        Caller {
            access_key: "A".into(),
            account: None,
            region: "us-east-1".into(),
            service: service.into(),
        }
    }

    #[test]
    fn versions_belong_to_their_service() {
        for (scope, version, expected) in [
            ("ec2", Some("2016-11-15"), None),
            ("ec2", Some("2012-12-01"), None),
            ("ec2", Some("2020-01-01"), Some("NoSuchVersion")),
            ("ec2", Some("2011-06-15"), Some("SignatureDoesNotMatch")),
            ("ec2", None, Some("MissingParameter")),
            ("sts", Some("2011-06-15"), None),
            ("sts", Some("2016-11-15"), Some("SignatureDoesNotMatch")),
            ("sts", Some("x"), Some("NoSuchVersion")),
        ] {
            let code = service(&caller(scope), version)
                .err()
                .map(|error| error.code);
            assert_eq!(code.as_deref(), expected, "{scope} {version:?}");
        }
        assert!(VERSIONS.is_sorted());
    }
}
