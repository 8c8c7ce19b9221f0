use farthing::compress::structural::compress;

use super::{letters, short, without};

#[test]
fn base64_becomes_its_size() {
    let file = format!("iVBORw0KGgo{}", letters(389, 7));
    assert_eq!(short(&format!("Here: {file}== and on")), "Here: [base64, 300 bytes] and on");
    assert_eq!(short(&format!("![a](data:image/png;base64,{file})")), "![a]([image/png, base64, 300 bytes])");
    // What does not begin as a file does is one if it is long.
    assert_eq!(short(&format!("Here: {} and on", letters(1000, 7))), "Here: [base64, 750 bytes] and on");
    let lines: Vec<String> = (0..14).map(|line| letters(76, line + 1)).chain([letters(10, 9)]).collect();
    assert_eq!(short(&format!("Content:\n{}\n\nEnd", lines.join("\r\n"))), "Content:\n[base64, 805 bytes]\n\nEnd");
    assert_eq!(compress(&format!("```\n{file}\n```")), None);
    assert_eq!(without(&format!("Here: {file}"), true, false), format!("Here: {file}"));
}

#[test]
fn what_may_be_a_key_stays() {
    let run = letters(400, 7);
    for text in [
        format!("eyJ{run}.{run}.{run}"),
        format!("{run}.{run}.{run}"),
        "0123456789abcdef".repeat(20),
        format!("https://example.com/a?sig={run}"),
        format!("api key: {run}"),
        format!("Authorization: Bearer {}", letters(2000, 7)),
        format!("psk {}", letters(2000, 7)),
        format!("Pass this on: {}", letters(440, 7)),
        format!("ssh-rsa AAAAB3NzaC1{run} me"),
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n{}\n{}\n{}\n-----END PRIVATE KEY-----",
            &run[..64],
            &run[64..128],
            &run[128..192],
            &run[192..256]
        ),
        "ACGT".repeat(100),
        "/usr/local/share/Some/Path1".repeat(20),
        letters(150, 3),
    ] {
        assert_eq!(compress(&text), None, "{text}");
    }
}

#[test]
fn frames_of_libraries_are_counted() {
    let python =
        |path: &str, line: usize| format!("  File \"{path}\", line {line}, in call\n    return  f(x)\n    ~~~^^^^\n");
    let library = "/usr/lib/python3.12/site-packages/lib/a.py";
    let trace = format!(
        "Traceback (most recent call last):\n{}{}{}ValueError: bad  \"value\n",
        python("/app/main.py", 3),
        (1..=9).map(|line| python(library, line)).collect::<String>(),
        python("/app/hook.py", 4)
    );
    let expected = format!(
        "Traceback (most recent call last):\n{}{}[… 7 frames of libraries]\n{}{}ValueError: bad  \"value\n",
        python("/app/main.py", 3),
        python(library, 1),
        python(library, 9),
        python("/app/hook.py", 4)
    );
    assert_eq!(short(&trace), expected);
    assert_eq!(compress(&format!("```\n{trace}```")), None);
    let few = format!("Traceback (most recent call last):\n{}{}E: x", python(library, 1), python(library, 2));
    assert_eq!(compress(&few), None);
}

#[test]
fn each_language_has_its_frames() {
    let java = "java.lang.IllegalStateException: no  way\n\tat com.acme.App.run(App.java:12)\n\tat org.springframework.A.b(A.java:1)\n\
                \tat java.base/java.lang.reflect.Method.invoke(Method.java:580)\n\tat org.apache.C.d(Unknown Source)\n\
                \tat java.base/java.lang.Thread.run(Thread.java:1583)\nCaused by: java.io.IOException: e\n\t... 23 more";
    let expected = "java.lang.IllegalStateException: no  way\n\tat com.acme.App.run(App.java:12)\n\tat org.springframework.A.b(A.java:1)\n\
                    [… 2 frames of libraries]\n\tat java.base/java.lang.Thread.run(Thread.java:1583)\n\
                    Caused by: java.io.IOException: e\n\t... 23 more";
    assert_eq!(short(java), expected);
    let frame = |line: usize| format!("    at next (/app/node_modules/express/lib/router.js:{line}:5)\n");
    let node =
        format!("TypeError: x is  not\n    at main (/app/index.js:3:1)\n{}", (1..=6).map(frame).collect::<String>());
    let expected = format!(
        "TypeError: x is  not\n    at main (/app/index.js:3:1)\n{}[… 4 frames of libraries]\n{}",
        frame(1),
        frame(6)
    );
    assert_eq!(short(&node), expected);
    let frame =
        |line: usize| format!("net/http.serve(0x{line})\n\t/usr/local/go/src/net/http/server.go:{line} +0x1d\n");
    let go = format!(
        "goroutine 1 [running]:\n{}main.main()\n\t/app/main.go:9 +0x2\n",
        (1..=5).map(frame).collect::<String>()
    );
    let expected = format!(
        "goroutine 1 [running]:\n{}[… 3 frames of libraries]\n{}main.main()\n\t/app/main.go:9 +0x2\n",
        frame(1),
        frame(5)
    );
    assert_eq!(short(&go), expected);
    let frame =
        |line: usize| format!("  {line}: tokio::runtime::run\n             at /rustc/1a/library/core.rs:{line}:5\n");
    let rust = format!(
        "stack backtrace:\n{}   6: app::main\n             at ./src/main.rs:4:5\n",
        (1..=5).map(frame).collect::<String>()
    );
    let expected = format!(
        "stack backtrace:\n{}[… 3 frames of libraries]\n{}   6: app::main\n             at ./src/main.rs:4:5\n",
        frame(1),
        frame(5)
    );
    assert_eq!(short(&rust), expected);
}
