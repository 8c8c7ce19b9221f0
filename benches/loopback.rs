//! The upstream of `make bench`: answers at once, from memory, so that what is measured is the client.
//!
//! `loopback [PORT]` prints its base URL and serves until its standard input ends. The endpoint is told from the path, a
//! stream from `"stream":true` in the body; everything else of a request is read and ignored. Faults, counting and
//! scripts are `tests/python/upstream.py`'s.

use std::io::{Read, Write};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CHAT: &str = r#"{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,"model":"gpt-4.1-2025-04-14","choices":[{"index":0,"message":{"role":"assistant","content":"A farthing was a quarter of a penny, the smallest coin of the old English money.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":21,"total_tokens":40,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_06737a9306"}"#;
const RESPONSE: &str = r#"{"id":"resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b","object":"response","created_at":1741476542.0,"status":"completed","error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"metadata":{},"model":"gpt-4.1-2025-04-14","output":[{"type":"message","id":"msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d3795b","status":"completed","role":"assistant","content":[{"type":"output_text","text":"A farthing was a quarter of a penny.","annotations":[],"logprobs":[]}]}],"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{"effort":null,"summary":null},"store":true,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_p":1.0,"truncation":"disabled","usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":123},"user":null}"#;
/// Words of a streamed answer; with the role, the finish and the usage that makes 41 chunks.
const WORDS: usize = 38;
const VECTORS: usize = 100;
const DIMENSIONS: usize = 1536;

struct Answers {
    chat: Vec<u8>,
    response: Vec<u8>,
    embeddings: Vec<u8>,
    stream: Vec<Vec<u8>>,
}

impl Answers {
    fn new() -> Self {
        Self { chat: plain(CHAT), response: plain(RESPONSE), embeddings: plain(&embeddings()), stream: stream() }
    }
}

fn plain(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\nopenai-processing-ms: 1\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn stream() -> Vec<Vec<u8>> {
    let frame = |choices: &str, usage: &str| {
        let data = format!(
            r#"data: {{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,"model":"gpt-4.1-2025-04-14","service_tier":"default","system_fingerprint":"fp_06737a9306","choices":[{choices}],"usage":{usage}}}"#
        );
        chunk(&format!("{data}\n\n"))
    };
    let choice = |delta: &str, finish: &str| {
        frame(&format!(r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}"#), "null")
    };
    let mut pieces = vec![
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_1\r\n\
          transfer-encoding: chunked\r\n\r\n"
            .to_vec(),
        choice(r#"{"role":"assistant","content":"","refusal":null}"#, "null"),
    ];
    pieces.extend((0..WORDS).map(|word| choice(&format!(r#"{{"content":" word{word}"}}"#), "null")));
    pieces.push(choice("{}", "\"stop\""));
    pieces.push(frame("", r#"{"prompt_tokens":19,"completion_tokens":40,"total_tokens":59}"#));
    pieces.push(chunk("data: [DONE]\n\n"));
    pieces.push(b"0\r\n\r\n".to_vec());
    pieces
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

fn embeddings() -> String {
    let vector = base64(DIMENSIONS);
    let data: Vec<String> = (0..VECTORS)
        .map(|index| format!(r#"{{"object":"embedding","index":{index},"embedding":"{vector}"}}"#))
        .collect();
    format!(
        r#"{{"object":"list","data":[{}],"model":"text-embedding-3-small","usage":{{"prompt_tokens":800,"total_tokens":800}}}}"#,
        data.join(",")
    )
}

/// `count` little-endian floats. (A whole number of groups of three bytes, so there is no padding.)
fn base64(count: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = (0..count).flat_map(|index| ((index as f32).sin() / 40.0).to_le_bytes()).collect();
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        for shift in [18, 12, 6, 0] {
            text.push(ALPHABET[(bits >> shift & 63) as usize] as char);
        }
    }
    text
}

async fn serve(mut socket: TcpStream, answers: Arc<Answers>) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer: Vec<u8> = Vec::with_capacity(16 * 1024);
    loop {
        let head = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|value| value.trim().parse::<usize>().ok())
            .unwrap_or(0);
        while buffer.len() < head + length {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body = &buffer[head..head + length];
        let streams = find(body, b"\"stream\":true").is_some() || find(body, b"\"stream\": true").is_some();
        let path = text.split(' ').nth(1).unwrap_or_default();
        if path.ends_with("/embeddings") {
            socket.write_all(&answers.embeddings).await?;
        } else if path.ends_with("/responses") {
            socket.write_all(&answers.response).await?;
        } else if streams {
            for piece in &answers.stream {
                socket.write_all(piece).await?;
            }
        } else {
            socket.write_all(&answers.chat).await?;
        }
        buffer.drain(..head + length);
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        println!("http://{}/v1", listener.local_addr()?);
        std::io::stdout().flush()?;
        // Whoever started this is gone when its end of the pipe is.
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
        let answers = Arc::new(Answers::new());
        loop {
            let (socket, _) = listener.accept().await?;
            tokio::spawn(serve(socket, Arc::clone(&answers)));
        }
    })
}
