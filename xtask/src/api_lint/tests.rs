//! A small made-up model, and one of each kind of difference.

use super::compare::{Report, compare};
use super::model::Model;
use super::ours::Schema;
use serde_json::{Value, json};

fn model() -> Model {
    let model = json!({
        "operations": {
            "DescribeCats": { "input": { "shape": "Request" }, "output": { "shape": "Result" } },
            "DeleteCat": { "input": { "shape": "Request" } },
        },
        "shapes": {
            "Request": { "type": "structure", "members": {
                "DryRun": { "shape": "Boolean" },
                "CatIds": { "shape": "Ids", "locationName": "CatId" },
                "Filters": { "shape": "Filters", "locationName": "filter", "queryName": "Filter" },
                "MaxResults": { "shape": "Long", "locationName": "maxResults" },
            }},
            "Filters": { "type": "list", "member": { "shape": "Filter", "locationName": "Filter" } },
            "Filter": { "type": "structure", "members": { "Name": { "shape": "String" } } },
            "Ids": { "type": "list", "member": { "shape": "String", "locationName": "CatId" } },
            "Result": { "type": "structure", "members": {
                "Cats": { "shape": "Cats", "locationName": "catSet" },
                "Odd": { "shape": "Ids", "locationName": "odd" },
                "NextToken": { "shape": "String", "locationName": "nextToken" },
            }},
            "Cats": { "type": "list", "member": { "shape": "Cat", "locationName": "item" } },
            "Cat": { "type": "structure", "members": {
                "Weight": { "shape": "Float", "locationName": "weight" },
                "Born": { "shape": "Time", "locationName": "born" },
                "Picture": { "shape": "Blob", "locationName": "picture" },
            }},
            "Boolean": { "type": "boolean" },
            "String": { "type": "string" },
            "Long": { "type": "long" },
            "Float": { "type": "float" },
            "Time": { "type": "timestamp" },
            "Blob": { "type": "blob" },
        },
    });
    serde_json::from_value(model).unwrap()
}

fn structure(fields: Value) -> Value {
    json!({ "structure": fields, "type": "T" })
}

fn against(action: &str, input: Value, output: Value) -> Report {
    let schema = json!({ action: { "input": structure(input), "output": structure(output) } });
    let schema: Schema = serde_json::from_value(schema).unwrap();
    compare(&schema, &model()).unwrap()
}

fn lines(report: &Report) -> Vec<String> {
    report.differences.iter().map(ToString::to_string).collect()
}

fn input(fields: Value) -> Vec<String> {
    lines(&against("DescribeCats", fields, json!({})))
}

fn output(fields: Value) -> Vec<String> {
    lines(&against("DescribeCats", json!({}), fields))
}

#[test]
fn what_agrees_is_counted() {
    let filter = structure(json!({ "Name": "string" }));
    let cat = structure(json!({ "weight": "double", "born": "timestamp", "picture": "blob" }));
    let report = against(
        "DescribeCats",
        json!({ "CatId": { "list": "string" }, "Filter": { "list": filter }, "MaxResults": "integer" }),
        json!({ "catSet": { "list": cat }, "nextToken": "string" }),
    );
    assert_eq!(lines(&report), [""; 0]);
    assert_eq!((report.actions, report.fields), (1, 9));
    let lacking = [("DescribeCats".to_owned(), "output.odd".to_owned())];
    assert_eq!(report.lacking, lacking);
}

#[test]
fn an_action_that_ec2_lacks() {
    let report = against("PetCat", json!({}), json!({}));
    assert_eq!(
        lines(&report),
        ["PetCat action: ours declared, EC2's none of this name"]
    );
}

#[test]
fn names_that_ec2_lacks() {
    assert_eq!(
        input(json!({ "Colour": "string" })),
        ["DescribeCats input.Colour: ours string, EC2's no such field"]
    );
    assert_eq!(
        input(json!({ "CatIds": { "list": "string" } })),
        ["DescribeCats input.CatIds: ours list, EC2's called CatId"]
    );
    assert_eq!(
        output(json!({ "NextToken": "string" })),
        ["DescribeCats output.NextToken: ours string, EC2's called nextToken"]
    );
    let cat = structure(json!({ "Weight": "double" }));
    assert_eq!(
        output(json!({ "catSet": { "list": cat } })),
        ["DescribeCats output.catSet[].Weight: ours double, EC2's called weight"]
    );
}

#[test]
fn kinds_that_differ() {
    for (ours, word) in [
        (json!("string"), "string"),
        (json!("double"), "double"),
        (json!("boolean"), "boolean"),
        (json!("timestamp"), "timestamp"),
        (json!("blob"), "blob"),
        (json!({ "list": "integer" }), "list"),
        (structure(json!({})), "structure"),
    ] {
        assert_eq!(
            input(json!({ "MaxResults": ours })),
            [format!(
                "DescribeCats input.MaxResults: ours {word}, EC2's integer"
            )]
        );
    }
    assert_eq!(
        input(json!({ "CatId": "string" })),
        ["DescribeCats input.CatId: ours string, EC2's list"]
    );
    assert_eq!(
        input(json!({ "CatId": { "list": "integer" } })),
        ["DescribeCats input.CatId[]: ours integer, EC2's string"]
    );
    assert_eq!(
        output(json!({ "catSet": { "list": "string" } })),
        ["DescribeCats output.catSet[]: ours string, EC2's structure"]
    );
}

#[test]
fn a_list_whose_members_are_no_items() {
    assert_eq!(
        output(json!({ "odd": { "list": "string" } })),
        ["DescribeCats output.odd[]: ours <item>, EC2's <CatId>"]
    );
}

#[test]
fn an_action_without_an_answer_says_that_it_is_done() {
    let delete = |output| lines(&against("DeleteCat", json!({}), output));
    assert_eq!(delete(json!({ "return": "boolean" })), [""; 0]);
    assert_eq!(
        delete(json!({})),
        ["DeleteCat output.return: ours absent, EC2's boolean"]
    );
    assert_eq!(
        delete(json!({ "return": "string", "more": "string" })),
        [
            "DeleteCat output.return: ours string, EC2's boolean",
            "DeleteCat output.more: ours string, EC2's only return",
        ]
    );
}
