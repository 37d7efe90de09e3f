//! STS on the same endpoint: who am I. Its form differs from EC2's (STS API reference, version 2011-06-15).

use super::call::Call;
use super::error::ApiError;
use super::wire::{Node, Xml};

/// Its only version.
pub const VERSION: &str = "2011-06-15";

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Serves one request; the answer document.
///
/// # Errors
/// `InvalidAction` for all but GetCallerIdentity, `UnknownParameter`.
pub fn serve(call: &Call, action: &str, node: &Node) -> Result<String, ApiError> {
    if action != "GetCallerIdentity" {
        return Err(ApiError::new(
            "InvalidAction",
            format!("Could not find operation {action} for version {VERSION}"),
        ));
    }
    if let Some(parameter) = node.unwanted() {
        return Err(ApiError::unknown(&parameter));
    }
    let root = "GetCallerIdentityResponse";
    let mut xml = Xml::answer(root, Some(NAMESPACE));
    xml.open("GetCallerIdentityResult");
    // Access keys here are an account's own: its root user's.
    xml.text("Arn", &format!("arn:aws:iam::{}:root", call.account));
    xml.text("UserId", &call.account);
    xml.text("Account", &call.account);
    xml.close("GetCallerIdentityResult");
    xml.open("ResponseMetadata");
    xml.text("RequestId", &call.request_id);
    xml.close("ResponseMetadata");
    Ok(xml.finish(root))
}

/// An error in STS's words and form: HTTP status and document.
#[must_use]
pub fn error(error: &ApiError, request_id: &str) -> (u16, String) {
    let (status, code) = match error.code.as_str() {
        "AuthFailure" => (403, "InvalidClientTokenId"),
        // STS says so of old requests, too.
        "RequestExpired" => (403, "SignatureDoesNotMatch"),
        code => (error.status(), code),
    };
    let message = match code {
        "InvalidClientTokenId" => "The security token included in the request is invalid.",
        _ => &error.message,
    };
    let mut xml = Xml::answer("ErrorResponse", Some(NAMESPACE));
    xml.open("Error");
    xml.text("Type", if status < 500 { "Sender" } else { "Receiver" });
    xml.text("Code", code);
    xml.text("Message", message);
    xml.close("Error");
    xml.text("RequestId", request_id);
    (status, xml.finish("ErrorResponse"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call {
            region: "us-east-1".into(),
            account: "123456789012".into(),
            access_key: "AKIATEST".into(),
            request_id: "r-1".into(),
            dry_run: false,
        }
    }

    #[test]
    fn the_caller_is_the_accounts_root() {
        let text = serve(&call(), "GetCallerIdentity", &Node::default()).unwrap();
        assert!(text.contains("<Arn>arn:aws:iam::123456789012:root</Arn>"));
        assert!(text.contains(&format!("xmlns=\"{NAMESPACE}\"")));
        assert!(text.contains("<RequestId>r-1</RequestId>"));
    }

    #[test]
    fn other_actions_and_parameters_are_refused() {
        let other = serve(&call(), "AssumeRole", &Node::default()).unwrap_err();
        assert_eq!(other.code, "InvalidAction");
        let node = Node::tree([("A".to_owned(), "1".to_owned())]).unwrap();
        let unknown = serve(&call(), "GetCallerIdentity", &node).unwrap_err();
        assert_eq!(unknown.code, "UnknownParameter");
    }

    #[test]
    fn errors_have_its_own_form_and_names() {
        let (status, text) = error(&ApiError::new("AuthFailure", "x"), "r-1");
        assert_eq!(status, 403);
        assert!(text.contains("<Code>InvalidClientTokenId</Code>"));
        let (status, text) = error(&ApiError::new("InvalidAction", "<x>"), "r-1");
        assert_eq!(status, 400);
        assert!(text.contains("<Message>&lt;x&gt;</Message>"));
        assert!(text.contains("<RequestId>r-1</RequestId></ErrorResponse>"));
    }
}
