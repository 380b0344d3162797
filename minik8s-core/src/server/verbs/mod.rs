//! The verbs, generic over kinds. Each file is one verb or one step that several verbs share; all of them are
//! `impl ApiServer`.

mod action;
mod asking;
mod body;
mod collection;
mod commit;
mod computed;
mod create;
mod delete;
mod modify;
mod patch;
mod prepare;
mod read;
mod resolve;
mod scale;
mod token;
mod update;
mod view;
mod watch;

pub(crate) use commit::store_error;
pub(crate) use resolve::{Served, invalid};
