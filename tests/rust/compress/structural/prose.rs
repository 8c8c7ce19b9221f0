use farthing::compress::structural::compress;

use super::short;

#[test]
fn empty_space_goes() {
    assert_eq!(
        short("One  two.   \r\n\r\n\n \t \nThree.\u{a0}\u{a0}Four\u{200b}five  \n\n"),
        "One two.\n\nThree. Fourfive\n"
    );
    assert_eq!(short("  - a  point\n   ends  "), "  - a point\n   ends");
    assert_eq!(short("\n\nText"), "Text");
    // Nothing would be left.
    assert_eq!(compress(" \n\n\t"), None);
    assert_eq!(compress(""), None);
}

#[test]
fn code_and_quotations_stay() {
    for text in [
        "```python\nx  =  1   \n\n\n\ny = 2\n```",
        "~~~\na  b \n```\n\n\n~~~",
        "```\nnever  closed \n\n\n",
        "  ```\n  in a  list \n  ```",
        "Say `a  b` and ``c  ` d`` here.",
        "An `open  one",
        "    indented  code   \n\n\n    more",
        "\tx  = 1\t",
        "> as  he said  \n> so  I do",
        "He said \"two  blanks\" and “two  more”.",
        "A \"quotation  of\ntwo  lines  \nor three\" here",
        "„So  ist es“ «comme  ça»",
        "| a   | b  |\n|-----|----|\n| 1   | 2  |",
        "a\t\tb\nc\t\t",
        "NAME    READY   STATUS\npod-1   1/1     Running\npod-2           Failed",
        "def f(x):\n  return  x\n\n\nimport os\n\n\nclass A:\n  b  = 1",
        "diff --git a/x b/x\n@@ -1 +1 @@\n-a  b \n+a b\n \n \n",
        "int  main() {\n  f( );\n\n\n  return  0;\n}",
        "می\u{200c}خواهم 👨\u{200d}👩\u{200d}👧 ภาษา\u{200b}ไทย",
    ] {
        assert_eq!(compress(text), None, "{text}");
    }
    assert_eq!(short("a  b\n```\na  b\n```\na  b"), "a b\n```\na  b\n```\na b");
    assert_eq!(short("a.  b \"c  d\" e.  f"), "a. b \"c  d\" e. f");
    assert_eq!(short("a  \"b\n\nc  d"), "a \"b\n\nc d");
}

#[test]
fn what_a_program_reads_stays_without_a_fence() {
    for block in [
        "cat > notes <<EOF\nOne  two.   \n\n\n  EOF\n\nThree.\n```\na  b\n```\nEOF",
        "cat <<-'END_OF_IT'\n  a  b \n\tEND_OF_IT",
        "text = <<~SQL\n  select  1  \nSQL",
        "cat <<'END-OF-FILE'\na  b \n\n\nEND-OF-FILE",
        "x=$((1<<3)); cat <<!\na  b \n\n\n!",
        "cat <<A <<B\na  b \n\n\nA\nc  d \n\n\nB",
        "echo <<<EOT\na  b \n\n\n  EOT;",
        "--- |\n  a  b \n\n\n  c",
        "x = '''it says \"\"\"\n\n\na  b \n'''",
        "cat <<EOF\n-----   \n=======  \nEOF",
        "```\n-----   \n=======  \n```",
        "script: |\n  echo  one  \n\n\n  echo two.  Three",
        "- name: >-  # folded\n    a  b  \n\n\n    c",
        "-  key: !!str |2\n     a  b ",
        "kept: |+\n  a \n\n\n",
        "description = \"\"\"\nOne  two.  \n\n\n\nThree.  Four\n\"\"\"",
        "x = '''a  b\n\n\nc  d'''",
        "NAME   READY   STATUS",
        "pod-1  1/1  Running",
    ] {
        assert_eq!(compress(block), None, "{block}");
        let text = format!("First.  Second.\n{block}\nThird.  Fourth.");
        assert_eq!(short(&text), format!("First. Second.\n{block}\nThird. Fourth."), "{block}");
    }
    // Where a text speaks of it, the code that follows is not taken for text.
    for text in ["Each has \"\"\" above:", "Write it with cat <<EOF:"] {
        let text = format!("{text}\n```\na  b \n\"\"\"\nEOF\n\n\nc  d \n```\n");
        assert_eq!(compress(&text), None, "{text}");
    }
    // Nothing that ends where it says: what was thought to be opened is text.
    for (text, shorter) in [
        ("shift << bits\n\n\nthen", "shift << bits\n\nthen"),
        ("a <<EOF\n\n\nb", "a <<EOF\n\nb"),
        ("so: >\nnot  deeper", "so: >\nnot deeper"),
        ("script: |\n  a\n\n\nText", "script: |\n  a\n\nText"),
        ("<<<<<<< HEAD\n\n\nHEAD", "<<<<<<< HEAD\n\nHEAD"),
        ("an \"\"\"open\n\n\none", "an \"\"\"open\n\none"),
        ("A `<<EOF` ends\n\n\nwith\nEOF", "A `<<EOF` ends\n\nwith\nEOF"),
    ] {
        assert_eq!(short(text), shorter);
    }
}

#[test]
fn long_rules_get_shorter() {
    assert_eq!(short(&format!("Part\n{}\nText", "=".repeat(60))), "Part\n==========\nText");
    assert_eq!(short(&"─".repeat(80)), "─".repeat(10));
    assert_eq!(short(&format!("Contents {} 12", ".".repeat(40))), "Contents .......... 12");
    assert_eq!(compress(&"-".repeat(20)), None);
    assert_eq!(compress(&"9".repeat(60)), None);
}

#[test]
fn lines_that_come_again_are_counted() {
    let line = "12:00 worker 3 is waiting";
    assert_eq!(short(&format!("{line}\n{line}\n{line}\nDone")), format!("{line} [×3]\nDone"));
    assert_eq!(short(&format!("{line}\n{line}  \n")), format!("{line} [×2]\n"));
    let line = "12:00 payload {one: 1}";
    assert_eq!(short(&format!("{line}\n{line}\n{line}\n")), format!("{line} [×3]\n"));
    let line = "The disk is nearly full.";
    assert_eq!(short(&format!("{line}\n{line}\n{line}\n")), format!("{line} [×3]\n"));
    // A short one, a quotation's, a table's, a row of data, an item of a list, code.
    for text in [
        "so it is\nso it is",
        "so he \"said it again\nso he \"said it again",
        "| 1 | two | three |\n| 1 | two | three |",
        "John Smith,London\nJohn Smith,London",
        "2024-01-01\tLondon city\t100\n2024-01-01\tLondon city\t100",
        "- buy milk and bread.\n- buy milk and bread.",
        "[NaN,\n \"the very same text\",\n \"the very same text\",\n \"the other\"]",
        "    call(one, two, three)\n    call(one, two, three)",
    ] {
        assert_eq!(compress(text), None, "{text}");
    }
}

#[test]
fn marks_in_prompts_stay() {
    for text in [
        "<document>\n<title>A</title>\n<source>b.txt</source>\nText\n</document>",
        "<instructions>\n  <p>Do it.</p>\n</instructions>",
        "<?xml version=\"1.0\"?>\n<feed><entry><title>A</title><link href=\"b\"/></entry></feed>",
    ] {
        assert_eq!(compress(text), None, "{text}");
    }
}
