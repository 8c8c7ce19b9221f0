//! Good answers in many styles: a prompt and what was rightly said to it. None of them may get a finding.

pub const GOOD: [(&str, &str); 37] = [
    ("Is it spam? Answer yes or no.", "no"),
    ("What is 17 * 3?", "51"),
    ("Classify the sentiment.", "positive"),
    ("Pick a letter", "B"),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("What is the capital of France?", "I'm sorry for the confusion earlier. The capital of France is Paris."),
    (
        "What's the weather like now?",
        "I can't access live data, but here is how you can find out: open the site of your country's weather service, type the name of your town, and look at the hourly forecast, which is brought up to date several times a day.",
    ),
    (
        "Write a letter that declines an invitation.",
        "Dear Ms Hill,\n\nI'm sorry, but I cannot attend. I am unable to provide a speaker either.\n\nYours,\nTom",
    ),
    (
        "Why can't I access the admin page of my router?",
        "I can't access your router from here, but check that you are on its network, that the address is right, and that the password was not changed.",
    ),
    (
        "Write a short apology for missing a meeting.",
        "I'm sorry I missed the meeting today. I will not be able to share my notes until Friday.",
    ),
    (
        "Draft an email that turns down the panel.",
        "Thank you for the invitation. I am unable to participate this year, since I will be away all of May.",
    ),
    ("Tell a short story.", "\"I can't help you,\" said the fox, and went his way. The hare sat down and thought."),
    ("Say whether the rule holds. If you do not know, say: I cannot answer that.", "I cannot answer that."),
    (
        "Write a poem with a refrain.",
        "The wind goes over the hill at night,\nO bring my sailor home to me.\nThe lamp is lit, the lamp is bright,\nO bring my sailor home to me.\nThe gulls have gone, the tide is low,\nO bring my sailor home to me.\nThere is no road where ships can go,\nO bring my sailor home to me.",
    ),
    (
        "Sing row your boat",
        "Row, row, row your boat,\nGently down the stream,\nMerrily, merrily, merrily, merrily,\nLife is but a dream.",
    ),
    (
        "Make a table.",
        "| name | ok |\n|------|----|\n| a | yes |\n| b | yes |\n| c | yes |\n| d | yes |\n| e | yes |\n| f | yes |\n| g | yes |\n| h | yes |",
    ),
    ("List three fruits.", "- apple\n- pear\n- plum"),
    ("Write hello world in Python.", "```python\nprint(\"hello, world\")\n```"),
    (
        "Group words by length in Python.",
        "Here it is:\n\n```python\nfrom collections import defaultdict\n\ndef group(words):\n    \"\"\"It's by length (no more.\"\"\"\n    found = defaultdict(list)\n    for word in words:  # don't sort (\n        found[len(word)].append(word)\n    return {k: v for k, v in found.items()\n        if v}\n\nprint(f\"{', '.join(group(['a']))}\")\nx = r'\\d+\\\\'\ny = '' or \"\"\n```\n\nIt runs in linear time.",
    ),
    ("A Python f-string?", "```python\nprint(f\"{d[\"x\"]} {\"a\" if x else \"b\"}\")\n```"),
    ("Show a method only.", "```python\n    def size(self):\n        return len(self.items)\n```"),
    ("Show the Python prompt.", "```python\n>>> 'it' + \"'s\"\n\"it's\"\n>>> print(')')\n)\n```"),
    (
        "Escape a string in JS",
        "```js\nconst escape = (s) => s.replace(/[.*+?^${}()|[\\]\\\\]/g, '\\\\$&'); // it's (\nconst t = `a ${b} (`;\n```",
    ),
    (
        "Longest of two in Rust",
        "```rust\nfn longest<'a>(one: &'a str, other: &'a str) -> &'a str {\n    if one.contains('{') || other.contains('\\'') { one } else { other }\n}\n```",
    ),
    ("A C loop?", "```c\nfor (int i = 0; i < 3; i++) {\n    putchar('('); /* ) */\n}\n```"),
    ("How do I handle it in Java?", "```java\ntry {\n    ...\n} catch (IOException e) {\n```"),
    ("Show JSON with comments", "```json\n{\n  // the name\n  \"name\": \"x\", ...\n}\n```"),
    ("JSON lines please", "```json\n{\"a\": 1}\n{\"a\": 2}\n```"),
    ("Write a README that has a code block.", "```markdown\n# Tool\n\n```sh\nmake\n```\n\nDone.\n```"),
    ("Steps?", "1. Install it:\n   ```sh\n   pip install x\n   ```\n2. Run it:\n   ```sh\n   x\n   ```"),
    (
        "Translate to French: I have a cat and it sleeps all day in the garden under the tree of the neighbours.",
        "J'ai un chat et il dort toute la journée dans le jardin sous l'arbre des voisins, et la nuit il est dans la maison avec les enfants pour jouer, ce qui ne leur déplaît pas du tout, car les nuits sont longues.",
    ),
    (
        "Summarise: La ville est dans le nord du pays, et les habitants vivent de la pêche et du tourisme depuis des siècles, avec des hauts et des bas.",
        "The town is in the north of the country, and its people have lived by fishing and tourism for centuries, with ups and downs that are told in this short text about the history of the place.",
    ),
    ("What does 你好 mean?", "It is a greeting. It means hello, and it is made of the characters for you and good."),
    (
        "东京是哪个国家的首都？请用一句话回答这个问题，并说明人口大约是多少，谢谢你的帮助，我很期待你的回答。",
        "东京是日本的首都，人口大约有一千四百万，都市圈人口超过三千七百万，是世界上最大的都市圈之一，经济十分发达。",
    ),
    (
        "Is a whale a fish? Why or why not?",
        "No. A whale is a mammal: it breathes air, is warm-blooded, bears live young and gives milk. Why do people ask? It swims.",
    ),
    (
        "Fix the grammar: He go to school every day with his two sister.",
        "He goes to school every day with his two sisters.",
    ),
    (
        "Give me ten random letters, one a line, then dots.",
        "a\nb\na\nb\na\nb\na\nb\na\nb\n........................................................................................................................................................................................................................................................................................................................",
    ),
];
