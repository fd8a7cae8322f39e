//! Cuts one generation into messages under a size.
//!
//! Invariant: exactly the last message says `complete`; a message exceeds the size only if it holds one single item.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;

use crate::proto::discovery as pb;
use crate::resource::{EncodedResource, ResourceKey};

/// What one generation consists of.
#[derive(Default)]
pub(super) struct Step {
    pub(super) resources: Vec<EncodedResource>,
    pub(super) removed: Vec<ResourceKey>,
    pub(super) withheld: Vec<(ResourceKey, Arc<[Arc<str>]>)>,
    pub(super) answered: Vec<Arc<str>>,
    pub(super) not_found: Vec<Arc<str>>,
}

impl Step {
    pub(super) fn is_empty(&self) -> bool {
        let Self { resources, removed, withheld, answered, not_found } = self;
        resources.is_empty()
            && removed.is_empty()
            && withheld.is_empty()
            && answered.is_empty()
            && not_found.is_empty()
    }

    /// The messages, each beginning as a copy of `header`.
    pub(super) fn into_messages(self, header: &pb::Delta, chunk_bytes: usize) -> VecDeque<pb::Delta> {
        let Self { resources, removed, withheld, answered, not_found } = self;
        let mut cutter =
            Cutter { header, chunk_bytes, bytes: 0, done: VecDeque::new(), open: header.clone() };
        for EncodedResource { key, version, payload, features_needed } in resources {
            let features_needed = features_needed.iter().map(ToString::to_string).collect();
            let resource =
                pb::Resource { key: Some(key.to_proto()), version: version.0, payload, features_needed };
            cutter.room_for(resource.encoded_len()).resources.push(resource);
        }
        for key in removed {
            let key = key.to_proto();
            cutter.room_for(key.encoded_len()).removed.push(key);
        }
        for (key, missing) in withheld {
            let features_missing = missing.iter().map(ToString::to_string).collect();
            let withheld = pb::Withheld { key: Some(key.to_proto()), features_missing };
            cutter.room_for(withheld.encoded_len()).withheld.push(withheld);
        }
        for scope in answered {
            cutter.room_for(scope.len()).answered_scopes.push(scope.to_string());
        }
        for scope in not_found {
            cutter.room_for(scope.len()).not_found_scopes.push(scope.to_string());
        }
        cutter.finish()
    }
}

struct Cutter<'a> {
    header: &'a pb::Delta,
    chunk_bytes: usize,
    bytes: usize,
    done: VecDeque<pb::Delta>,
    open: pb::Delta,
}

/// Field tag and length prefix of an item: at most so many bytes.
const ITEM_OVERHEAD: usize = 6;

impl Cutter<'_> {
    fn room_for(&mut self, item: usize) -> &mut pb::Delta {
        let item = item + ITEM_OVERHEAD;
        if self.bytes > 0 && self.bytes + item > self.chunk_bytes {
            self.done.push_back(std::mem::replace(&mut self.open, self.header.clone()));
            self.bytes = 0;
        }
        self.bytes += item;
        &mut self.open
    }

    fn finish(mut self) -> VecDeque<pb::Delta> {
        self.open.complete = true;
        self.done.push_back(self.open);
        self.done
    }
}
