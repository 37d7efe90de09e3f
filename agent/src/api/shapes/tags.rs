//! Structures of the actions on tags.

use super::common::{Filter, TagInput};
use crate::api::wire::shapes;

shapes! {
    /// Request of CreateTags and DeleteTags.
    input TagsRequest {
        /// Ids of any kind.
        resources: Vec<String> = "ResourceId",
        /// The tags.
        tags: Vec<TagInput> = "Tag",
    }
    /// Request of DescribeTags.
    input DescribeTagsRequest {
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Size of a page.
        max_results: Option<i32> = "MaxResults",
        /// Which page.
        next_token: Option<String> = "NextToken",
    }
    /// Answer of DescribeTags.
    output DescribeTagsResult {
        /// The tags.
        tags: Vec<TagDescription> = "tagSet",
        /// Names the next page.
        next_token: Option<String> = "nextToken",
    }
    /// `TagDescription`.
    output TagDescription {
        /// Whose it is.
        resource_id: String = "resourceId",
        /// `instance`, `volume`, …
        resource_type: String = "resourceType",
        /// Key.
        key: String = "key",
        /// Value.
        value: String = "value",
    }
}
