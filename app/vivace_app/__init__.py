"""The Streamlit leaderboard: pages that read the results database and never run or write anything."""
