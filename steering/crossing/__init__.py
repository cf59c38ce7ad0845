"""Between two vocabularies: the text, a history in the steering vocabulary, and how base tokens begin there."""
