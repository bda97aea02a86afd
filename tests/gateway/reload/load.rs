//! Reloads while the gateway is used, and many in a row.

use crate::harness::{Gateway, name, within};
use turnwire::proto::v1;

const CONVERSATIONS: usize = 8;
const SAID: usize = 20;

/// Every second configuration: another bot beside, another name, other limits.
fn another(config: &str) -> String {
    let config = config.replace("name = \"Echo\"", "name = \"Echo the second\"");
    format!("{config}\n[[bots]]\nid = \"helper\"\n")
}

#[tokio::test]
async fn a_reload_under_load_loses_and_doubles_nothing() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    let answering = tokio::spawn(async move {
        for _ in 0..CONVERSATIONS * SAID {
            let delivery = bot.next_delivery().await;
            let answer = format!("re: {}", crate::harness::said(&delivery));
            bot.commits(&delivery, &[&answer]).await;
        }
        bot.expect_nothing().await;
    });
    let users = (0..CONVERSATIONS).map(|number| {
        let user = gateway.user(&format!("c{number}"));
        tokio::spawn(async move {
            for said in 0..SAID {
                user.says(&said.to_string()).await;
            }
        })
    });
    let users: Vec<_> = users.collect();
    let mut reloads = 0;
    while users.iter().any(|user| !user.is_finished()) || reloads < 20 {
        let reloaded = if reloads % 2 == 0 {
            gateway.reload(another).await
        } else {
            gateway.reload(str::to_owned).await
        };
        reloaded.expect("it is in force");
        reloads += 1;
    }
    for user in users {
        user.await.expect("all is taken");
    }
    within("the answers", answering)
        .await
        .expect("all is answered");
    for number in 0..CONVERSATIONS {
        let texts = gateway.texts(&format!("c{number}")).await;
        let only = |prefix: bool| {
            texts
                .iter()
                .filter(move |text| text.starts_with("re:") == prefix)
        };
        let said: Vec<_> = only(false).cloned().collect();
        let wanted: Vec<_> = (0..SAID).map(|said| said.to_string()).collect();
        assert_eq!(said, wanted);
        let answers: Vec<_> = only(true).cloned().collect();
        let wanted: Vec<_> = wanted.iter().map(|said| format!("re: {said}")).collect();
        assert_eq!(answers, wanted);
    }
}

#[tokio::test]
async fn a_bot_that_comes_and_goes_under_load_finishes_everything_in_order() {
    let mut gateway = Gateway::start().await;
    let gone = |config: &str| {
        config
            .replace("[[bots]]\nid = \"other\"\n", "")
            .replace("bot = \"other\"", "bot = \"echo\"")
    };
    let mut echo = gateway.bot("echo").attach().await;
    let user = gateway.user("s1").on("second");
    let mut by_other = Vec::new();
    for round in 0..10 {
        let mut other = gateway.bot("other").attach().await;
        user.says(&format!("to both {round}")).await;
        // What was left the last time comes first, and nothing twice once it is finished.
        let finished = loop {
            let delivery = other.next_delivery().await;
            let said = crate::harness::said(&delivery);
            other.acks(&delivery).await;
            if said == format!("to both {round}") {
                break said;
            }
            by_other.push(said);
        };
        by_other.push(finished);
        gateway.reload(gone).await.expect("it is in force");
        other.expect_end(tonic::Code::NotFound, "BOT_UNKNOWN").await;
        user.says(&format!("while away {round}")).await;
        gateway.reload(str::to_owned).await.expect("it is in force");
    }
    let wanted: Vec<_> = (0..10)
        .flat_map(|round| [format!("to both {round}"), format!("while away {round}")])
        .collect();
    assert_eq!(by_other, wanted[..19]);
    // The channel's other bot joined when the first had gone, and has seen all since.
    let mut by_echo = Vec::new();
    while by_echo.len() < 19 {
        let delivery = echo.next_delivery().await;
        by_echo.push(crate::harness::said(&delivery));
        echo.acks(&delivery).await;
    }
    assert_eq!(by_echo, wanted[1..]);
    echo.expect_nothing().await;
}

#[tokio::test]
async fn a_hundred_reloads_leave_nothing_behind() {
    let mut gateway = Gateway::start().await;
    let mut bot = gateway.bot("echo").attach().await;
    gateway.user("c1").says("hi").await;
    let delivery = bot.expect("c1", "hi", 1).await;
    let mut watcher = gateway.watch("c1", 0).await;
    watcher.expect(1, "hi").await;
    for round in 0..100 {
        let bot = format!("\n[[bots]]\nid = \"helper-{round}\"\n");
        let channel = format!(
            "\n[[channels]]\nid = \"c-{round}\"\nkind = \"grpc\"\nbot = \"helper-{round}\"\n"
        );
        let extra = format!("{bot}{channel}");
        let reloaded = gateway.reload(|config| format!("{config}{extra}")).await;
        reloaded.expect("it is in force");
        if round % 10 == 0 {
            let _helper = gateway.bot(&format!("helper-{round}")).attach().await;
            let _adapter = gateway.adapter(&format!("c-{round}")).attach().await;
        }
    }
    gateway.reload(str::to_owned).await.expect("it is in force");
    bot.commits(&delivery, &["hello"]).await;
    watcher.expect(2, "hello").await;
    drop(watcher);
    gateway.settle().await;
    gateway.pass_slowly(15).await;
    let (_, metrics) = gateway.get("/metrics").await;
    assert!(
        !metrics.contains("helper-") && !metrics.contains("c-1"),
        "{metrics}"
    );
    // The bot, and the harness's own.
    assert_eq!(gateway.metric("turnwire_sessions{kind=\"bot\"}").await, 2.0);
    assert_eq!(
        gateway.metric("turnwire_sessions{kind=\"channel\"}").await,
        0.0
    );
    assert_eq!(
        gateway
            .metric("turnwire_reloads_total{result=\"applied\"}")
            .await,
        101.0
    );
    let mut client = gateway.wire().conversations();
    let request = v1::GetConversationRequest {
        conversation: Some(name("web", "c1")),
    };
    within("a conversation", client.get_conversation(request))
        .await
        .expect("it is known");
}
