"""What is asked: requests, weighted sums of texts, and files of queries."""
