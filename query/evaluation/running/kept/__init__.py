"""What is kept between runs, and what it was made of."""
