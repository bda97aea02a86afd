//! Lists as streams that fetch a page when it is needed.

use std::collections::VecDeque;
use std::future::Future;

use futures_util::stream::{self, Stream};

use super::Conversations;
use crate::Error;
use crate::proto::list_conversations_request::Filter;
use crate::proto::{
    ChannelAccount, Conversation, ConversationName, ListActivitiesRequest,
    ListConversationsRequest, ListMembersRequest, ListScheduledActivitiesRequest, LogEntry,
    ReadOrder, ScheduledActivity,
};

impl Conversations {
    /// Lists conversations, the one started last first; without a filter all the caller may see.
    ///
    /// The stream ends after the first error.
    pub fn list(
        &self,
        filter: Option<Filter>,
    ) -> impl Stream<Item = Result<Conversation, Error>> + Send + use<> {
        let conversations = self.clone();
        pages(move |page_token| {
            let conversations = conversations.clone();
            let request = ListConversationsRequest {
                filter: filter.clone(),
                page_size: 0,
                page_token,
            };
            async move {
                let page = conversations.list_page(request).await?;
                Ok((page.conversations, page.next_page_token))
            }
        })
    }

    /// Lists a conversation's members.
    ///
    /// The stream ends after the first error.
    pub fn members(
        &self,
        conversation: ConversationName,
    ) -> impl Stream<Item = Result<ChannelAccount, Error>> + Send + use<> {
        let conversations = self.clone();
        pages(move |page_token| {
            let conversations = conversations.clone();
            let request = ListMembersRequest {
                conversation: Some(conversation.clone()),
                page_size: 0,
                page_token,
            };
            async move {
                let page = conversations.members_page(request).await?;
                Ok((page.members, page.next_page_token))
            }
        })
    }

    /// Lists the sends of a conversation that wait for their time, the one that is due first at the head.
    ///
    /// The stream ends after the first error.
    pub fn scheduled(
        &self,
        conversation: ConversationName,
    ) -> impl Stream<Item = Result<ScheduledActivity, Error>> + Send + use<> {
        let conversations = self.clone();
        pages(move |page_token| {
            let conversations = conversations.clone();
            let request = ListScheduledActivitiesRequest {
                conversation: Some(conversation.clone()),
                page_size: 0,
                page_token,
            };
            async move {
                let page = conversations.scheduled_page(request).await?;
                Ok((page.scheduled, page.next_page_token))
            }
        })
    }

    /// Reads a conversation's transcript from either end.
    ///
    /// The stream ends after the first error.
    pub fn activities(
        &self,
        conversation: ConversationName,
        order: ReadOrder,
    ) -> impl Stream<Item = Result<LogEntry, Error>> + Send + use<> {
        let conversations = self.clone();
        pages(move |page_token| {
            let conversations = conversations.clone();
            let request = ListActivitiesRequest {
                conversation: Some(conversation.clone()),
                order: order.into(),
                page_size: 0,
                page_token,
            };
            async move {
                let page = conversations.activities_page(request).await?;
                Ok((page.entries, page.next_page_token))
            }
        })
    }
}

/// The items of page after page. `fetch` gets a page token and returns the items with the next
/// token, which is empty for the last page.
pub(crate) fn pages<T, F, P>(fetch: F) -> impl Stream<Item = Result<T, Error>> + Send
where
    T: Send,
    F: Fn(String) -> P + Send,
    P: Future<Output = Result<(Vec<T>, String), Error>> + Send,
{
    struct Reading<T, F> {
        fetch: F,
        items: VecDeque<T>,
        next: Option<String>,
    }
    let reading = Reading {
        fetch,
        items: VecDeque::new(),
        next: Some(String::new()),
    };
    stream::try_unfold(reading, |mut reading| async move {
        loop {
            if let Some(item) = reading.items.pop_front() {
                return Ok(Some((item, reading)));
            }
            // A page may be empty and still not the last.
            let Some(token) = reading.next.take() else {
                return Ok(None);
            };
            let (items, next) = (reading.fetch)(token).await?;
            reading.items = items.into();
            reading.next = Some(next).filter(|next| !next.is_empty());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn all_pages_are_read_and_empty_ones_passed_over() {
        let items = pages(|token| async move {
            Ok(match token.as_str() {
                "" => (vec![1, 2], "a".to_owned()),
                "a" => (vec![], "b".to_owned()),
                _ => (vec![3], String::new()),
            })
        });
        let items: Vec<Result<i32, Error>> = items.collect().await;
        let items: Vec<i32> = items.into_iter().flatten().collect();
        assert_eq!(items, [1, 2, 3]);
    }

    #[tokio::test]
    async fn an_error_ends_the_list() {
        let items = pages(|token| async move {
            match token.as_str() {
                "" => Ok((vec![1], "a".to_owned())),
                _ => Err(Error::Ended),
            }
        });
        let items: Vec<Result<i32, Error>> = items.collect().await;
        assert!(matches!(items[..], [Ok(1), Err(Error::Ended)]));
    }
}
